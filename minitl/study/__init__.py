"""Build it yourself: 23 stages, each a function of minitl that the learner writes.

`minitl study` lists the stages, `start` writes the file to work in, `check` says what is wrong with
what stands in it, and then runs the real VGG16 with it. A stage is a text, `stages/NN-name.md`
(`texts.py` reads it), and an entry of a table that says which function of minitl is the right one.
"""

from minitl.study.texts import Text, all_texts

__all__ = ["Text", "all_texts"]
