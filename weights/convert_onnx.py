"""A Keras VGG16 or VGG19 that became ONNX (tf2onnx) -> its convolutions as legacy HDF5.

    python weights/convert_onnx.py model.onnx weights.h5

Takes the initializers whose names hold 'block<n>_conv<m>', turns the kernels from OIHW to HWIO,
and says whether they are the published VGG16. Needs no onnx package.
"""

import argparse
import sys

from minitl.applications.onnx import read_initializers
from minitl.applications.weights import differences, vgg_from_onnx
from minitl.storage.keras_files import write_weights


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the ONNX file")
    parser.add_argument("target", help="the HDF5 file to write")
    arguments = parser.parse_args(argv)
    try:
        layers = vgg_from_onnx(read_initializers(arguments.source))
        write_weights(arguments.target, layers, {"source": arguments.source})
    except (OSError, ValueError) as error:
        print(f"convert_onnx: {error}", file=sys.stderr)
        return 1
    kind = "other weights than" if differences(layers) else "bit for bit"
    print(f"{arguments.target}: {len(layers)} layers, {kind} the published VGG16 without top")
    return 0


if __name__ == "__main__":
    sys.exit(main())
