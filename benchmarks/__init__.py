"""How fast, how exact, how large: one question per file, measured where you run it.

    python -m pip install -e '.[bench,demo]'
    python -m benchmarks --list                     the questions
    python -m benchmarks --json results.json        all of them; takes hours, close everything else
    python -m benchmarks --only forward layers      some of them
    python -m benchmarks.forward --quick            one of them, on tiny settings, to see it work
    python -m benchmarks.table results.json         the README's table

`contest.py` is how others are measured: each contender in a process of its own, one at a time, in
turns, and no time is reported unless all outputs agree. `contenders.py` is what they run: VGG16's
layers, the published weights, photographs; `peers.py` says it in each runtime's words.
"""
