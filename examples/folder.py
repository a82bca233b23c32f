"""A folder of pictures to try the command line on: solar cells, one sub-folder per class.

    python examples/folder.py photos [--images 60]

Needs the extra `demo` for the images.
"""

import argparse
from pathlib import Path

from PIL import Image

from minitl.data import elpv
from minitl.data.splits import stratified_subset

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=Path)
parser.add_argument("--images", type=int, default=60, help="default: %(default)s")
arguments = parser.parse_args()

cells, probability, _ = elpv.load_data()
labels = elpv.labels(probability)
chosen = stratified_subset(labels, arguments.images, seed=0)
for i in chosen:
    place = arguments.folder / ("cracked" if labels[i] else "sound")
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cells[i]).save(place / f"{i:04}.png")
print(f"{len(chosen)} pictures in {arguments.folder}")
