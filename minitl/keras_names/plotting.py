"""`plot_model`: a picture of a model's graph, a box per layer, those nearer to the input above."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIZE = 16  # of letters, in pixels


def plot_model(
    model: Any,
    to_file: str | Path = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    **_: Any,
) -> Any:
    """Draw the model into an image file, from top to bottom. The image is returned as well, for a
    notebook. Keras's other settings change nothing."""
    if not model.outputs:
        raise ValueError(f"{model.name!r} has no graph yet: build it, or call it on data, first")
    steps: list[Any] = [(t.call.layer, [t], []) for t in model.inputs]
    steps += [(call.layer, call.outputs, call.inputs) for call in model.graph.calls]
    rows: list[list[Any]] = [[] for _ in steps]
    row_of: dict[int, int] = {}  # by the id of a tensor
    for layer, outputs, inputs in steps:
        lines = [type(layer).__name__, *([layer.name] if show_layer_names else [])]
        lines += [str(t.shape) for t in outputs if show_shapes]
        lines += [t.dtype for t in outputs if show_dtype]
        row = 1 + max((row_of[id(t)] for t in inputs), default=-1)
        rows[row].append(("\n".join(lines), outputs, inputs))
        row_of |= {id(t): row for t in outputs}
    rows, font = list(filter(None, rows)), ImageFont.load_default(SIZE)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    sizes = [pen.textbbox((0, 0), text, font)[2:] for row in rows for text, *_ in row]
    wide, high = (int(max(size[i] for size in sizes)) + 3 * SIZE for i in (0, 1))
    across = wide * max(map(len, rows))
    picture = Image.new("RGB", (across, high * len(rows)), "white")
    pen, places = ImageDraw.Draw(picture), dict[int, tuple[float, float]]()
    boxes: list[Any] = []  # drawn over the lines
    for r, row_of_boxes in enumerate(rows):
        for i, (text, outputs, inputs) in enumerate(row_of_boxes):
            place = across * (i + 0.5) / len(row_of_boxes), high * (r + 0.5)
            places |= {id(t): place for t in outputs}
            boxes.append((place, text))
            for t in inputs:
                pen.line((*places[id(t)], *place), "gray", 2)
    for place, text in boxes:
        left, top, right, bottom = pen.textbbox(place, text, font, "mm")
        pen.rectangle((left - 8, top - 8, right + 8, bottom + 8), "white", "black")
        pen.text(place, text, "black", font, "mm", align="center")
    picture.save(to_file)
    return picture
