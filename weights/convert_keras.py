"""Any Keras weight file (.h5, .weights.h5, .keras) -> legacy HDF5, which Keras and minitl read.

    python weights/convert_keras.py model.keras weights.h5

Keras reads the legacy layout by the order of the layers. A legacy file keeps its order. The newer
layouts do not say theirs; the order in which their arrays lie in the file is taken, which is the
model's for files that Keras 3 wrote itself.
"""

import argparse
import sys

from minitl.storage.keras_files import read_weights, write_weights


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the Keras file")
    parser.add_argument("target", help="the HDF5 file to write")
    arguments = parser.parse_args(argv)
    try:
        file = read_weights(arguments.source)
        write_weights(arguments.target, file.layers, {"source": file.path.name})
    except (OSError, ValueError) as error:
        print(f"convert_keras: {error}", file=sys.stderr)
        return 1
    arrays = sum(len(weights) for _, weights in file.layers)
    print(f"{arguments.target}: {arrays} arrays, from the {file.layout} layout")
    return 0


if __name__ == "__main__":
    sys.exit(main())
