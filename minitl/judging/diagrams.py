"""The two graphs of a model as diagrams: the tape of a computation, and the calls of layers.

`tape_diagram` shows how a tensor was made, edge by edge: what is frozen has no edge and is not
there. `call_diagram` shows a model's calls, and of each whether its layer learns, whether only
gradients pass, or whether no gradient comes there at all. A `Diagram` is drawn (matplotlib), or
written as Mermaid, which Git hosts and notebooks show as a picture.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minitl.autograd import Tensor
from minitl.judging.gradients import tape
from minitl.judging.plots import blank_figure, finish_figure
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.models.opened import open_up

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a box is: how it is filled, and how its border is drawn, so that colour alone tells nothing.
KINDS = {"learns": ("#CCE3F2", "-"), "passes": ("#FFFFFF", "-"), "frozen": ("#EEEEEE", ":")}


class Diagram(NamedTuple):
    """Boxes, numbered from 0, and arrows between them.

    labels  what stands in each box
    kinds   'learns', 'passes' (gradients go through), or 'frozen' (none comes here)
    arrows  (from, to), in the direction of the forward pass
    """

    labels: list[str]
    kinds: list[str]
    arrows: list[tuple[int, int]]

    def mermaid(self) -> str:
        """The diagram as text.

        >>> print(Diagram(["a", "a * a"], ["learns", "passes"], [(0, 1)]).mermaid())
        flowchart TD
            n0["a"]:::learns
            n1["a * a"]:::passes
            n0 --> n1
            classDef learns fill:#CCE3F2
            classDef passes fill:#FFFFFF
            classDef frozen fill:#EEEEEE,stroke-dasharray:3
        """
        lines = []
        for i, (label, kind) in enumerate(zip(self.labels, self.kinds, strict=True)):
            text = label.replace('"', "'").replace("\n", "<br>")
            lines.append(f'n{i}["{text}"]:::{kind}')
        lines += [f"n{a} --> n{b}" for a, b in self.arrows]
        for kind, (fill, border) in KINDS.items():
            dashed = ",stroke-dasharray:3" if border == ":" else ""
            lines.append(f"classDef {kind} fill:{fill}{dashed}")
        return "\n    ".join(["flowchart TD", *lines])

    def draw(self, path: str | os.PathLike[str] | None = None, title: str | None = None) -> Figure:
        """The diagram as a figure, written where there is a path: a box stands below all that lead
        to it."""
        depth = [0] * len(self.labels)
        for _ in self.labels:  # as often as the longest way may be long
            for a, b in self.arrows:
                depth[b] = max(depth[b], depth[a] + 1)
        rows = [[i for i, d in enumerate(depth) if d == row] for row in range(max(depth) + 1)]
        wide = max(map(len, rows))
        figure = blank_figure(2.1 * wide + 1, 0.75 * len(rows) + 0.4)
        axes = figure.add_subplot()
        axes.set(xlim=(-0.5, wide - 0.5), ylim=(-len(rows) + 0.5, 0.5))
        axes.axis("off")
        places = {}
        for row, here in enumerate(rows):
            for column, i in enumerate(here):
                places[i] = (column + (wide - len(here)) / 2, -row)
        boxes = []
        for i, (label, kind) in enumerate(zip(self.labels, self.kinds, strict=True)):
            fill, border = KINDS[kind]
            box = {"boxstyle": "round,pad=0.35", "facecolor": fill, "linestyle": border}
            how = {"ha": "center", "va": "center", "fontsize": 8, "bbox": box}
            boxes.append(axes.annotate(label, places[i], **how))  # type: ignore[arg-type]
        for a, b in self.arrows:
            arrow = {"arrowstyle": "->", "shrinkA": 12, "shrinkB": 12, "patchB": None}
            arrow["connectionstyle"] = "arc3" if depth[b] == depth[a] + 1 else "arc3,rad=0.3"
            axes.annotate("", places[b], places[a], arrowprops=arrow)
        return finish_figure(figure, path, title)


def tape_diagram(y: Tensor) -> Diagram:
    """How y was made: a box for each tensor that a gradient of y reaches. Before `backward`, which
    uses the record up."""
    found = Diagram([], [], [])
    for number, (tensor, name, inputs) in enumerate(tape(y)):
        found.labels.append(f"{name} {tensor.shape}")
        found.kinds.append("passes" if tensor.node else "learns")
        found.arrows.extend((source, number) for source in inputs)
    return found


def call_diagram(model: Model) -> Diagram:
    """The calls of a model's graph, models inside it opened up, and where its gradients stop.

    A layer without weights, or a frozen one, 'passes' gradients if something before it learns.
    """
    graph = open_up(model)
    makers: dict[int, int] = {}
    found = Diagram([], [], [])
    for call in graph.calls:
        number, shapes = len(found.labels), ", ".join(str(t.shape[1:]) for t in call.outputs)
        before = [makers[id(t)] for t in call.inputs if id(t) in makers]
        learns = any(v.trainable for v in call.layer.weights)
        reached = any(found.kinds[i] != "frozen" for i in before)
        found.labels.append(f"{call.layer.name}\n{shapes}")
        found.kinds.append("learns" if learns else "passes" if reached else "frozen")
        found.arrows.extend((i, number) for i in before)
        makers.update((id(t), number) for t in call.outputs)
    return found


guard(globals())
