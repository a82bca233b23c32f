"""Random configurations of all components, minitl beside Keras.

    python -m tests.keras_live.fuzz --cases 1000 --seed 1
    python -m tests.keras_live.fuzz --seed 1234 --only layers.Conv2D      # one, and show its script

Case i of seed S is drawn from (S, i). Prints a script for every case that differs, and a table of
how many of each component ran; exit code 1 when any differs.
"""

import argparse
import collections
import os
import sys
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", default="", help="components whose name begins so")
    parser.add_argument("--show", action="store_true", help="print the scripts, run nothing")
    options = parser.parse_args()

    import tensorflow as tf

    from tests.keras_live import random_models  # noqa: F401 (adds its entries)
    from tests.keras_live.random_cases import ENTRIES, draw, exists

    tf.config.run_functions_eagerly(True)
    names = [n for n in ENTRIES if n.startswith(options.only) and exists(n.partition(":")[0])]
    ran, failed = collections.Counter(), []
    begin = time.perf_counter()
    for case in range(options.cases):
        program = draw((options.seed, case), names[case % len(names)] if options.only else None)
        if options.show:
            print(program.script)
            continue
        ran[program.component] += 1
        try:
            program.run()
        except Exception as error:
            failed.append(program.component)
            traceback.print_exception(error, limit=-1)
            sys.stderr.flush()
    if options.show:
        return 0
    for name in names:
        print(f"{name:45} {ran[name]:5} {failed.count(name) or '':>5}")
    print(
        f"{sum(ran.values()) - len(failed)} of {sum(ran.values())} within bounds; "
        f"{sum(1 for n in names if ran[n])} of {len(names)} components; "
        f"seed {options.seed}; {time.perf_counter() - begin:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
