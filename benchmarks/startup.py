"""How soon is a new process ready: importing, and its first prediction?

The clock starts before the process does. 'cold' is the first prediction on a machine where
nothing has been compiled yet, 'warm' every one after that: the compiled kernels are kept, here
in a temporary folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contenders import photographs
from benchmarks.contest import alternate
from benchmarks.peers import NEEDS

# Both print the time of day when they are done, the import also what it alone took.
IMPORT = """
import time
started = time.perf_counter()
import {package}
print(time.perf_counter() - started)
"""
PREDICT = """
import sys, time
import numpy as np
from minitl.applications import VGG16
image = np.load(sys.argv[1])
model = VGG16(weights="imagenet", include_top=False, input_shape=image.shape[1:])
assert np.isfinite(model.predict(image, verbose=0)).all()
print(time.time())
"""
PACKAGES = {
    "minitl": "minitl",
    "Keras": "keras",
    "PyTorch": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
}


def measure(options: Options) -> Report:
    repetitions, colds = options.pick((7, 2), (2, 1))
    told = {"image": options.size, "repetitions": f"{repetitions} ({colds} cold)"}
    report = Report("startup", (__doc__ or "").splitlines()[0], told)
    _imports(report, repetitions)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.npy"
        np.save(image, photographs(1, options.size))
        case = "first prediction"
        cold = [_first_prediction(image, Path(folder) / f"cache{i}") for i in range(colds)]
        report.add(case, "minitl, cold", "s", cold)
        warm = [_first_prediction(image, Path(folder) / "cache0") for _ in range(repetitions)]
        report.add(case, "minitl, warm", "s", warm)
    report.limit("import", "minitl", 0.5)
    report.limit(case, "minitl, warm", 3.0)
    return report


def _imports(report: Report, repetitions: int) -> None:
    """Time `import package` in fresh processes, in turns; the first round is not counted."""
    from importlib.util import find_spec

    runs = {}
    for name, package in PACKAGES.items():
        if find_spec(package) is None or not all(map(find_spec, NEEDS.get(name, ())[:1])):
            report.missing.append(name)
        else:
            runs[name] = lambda package=package: float(_run(IMPORT.format(package=package)))
    for name, seconds in alternate(runs, repetitions + 1).items():
        report.add("import", name, "s", seconds[1:])


def _first_prediction(image: Path, cache: Path) -> float:
    """Seconds from the start of a process to VGG16's output of one image."""
    cache.mkdir(exist_ok=True)
    started = time.time()
    return float(_run(PREDICT, str(image), NUMBA_CACHE_DIR=str(cache))) - started


def _run(code: str, *arguments: str, **environment: str) -> str:
    """The last word that a fresh Python prints."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        | quiet
        | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr}")
    return done.stdout.split()[-1]


if __name__ == "__main__":
    main(measure)
