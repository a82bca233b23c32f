"""Build it yourself: 23 stages, each a function of minitl that the learner writes.

`minitl study` lists the stages, `start` writes the file to work in, `check` says what is wrong with
what stands in it, and then runs the real VGG16 with it. A stage is a text, `stages/NN-name.md`
(`texts.py` reads it), and its functions: what is right, and random cases (`arithmetic.py`,
`training.py`). `checks.py` and `symptoms.py` find what is wrong, `network.py` is the judge, and
`process.py` keeps the learner's code away from all else. Read `texts.py` next.
"""

from minitl.study.texts import all_texts

__all__ = ["all_texts"]
