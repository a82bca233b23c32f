"""Keras's own unit tests, run on minitl: how much of what Keras promises holds here?

`python -m benchmarks.keras_tests CHECKOUT` takes a checkout of Keras's repository (3.15.1 is what
minitl is compared with), runs the test files of the parts that minitl has, with `keras` meaning
minitl, and counts: passed, passed with other error words, refused in words, a bare error of Python
or NumPy, or a real difference. `sorting.py` says which tests cannot apply, and how an outcome is
told; `stand_in.py` is what the tests take for Keras; `child.py` runs one file in its own process.
"""
