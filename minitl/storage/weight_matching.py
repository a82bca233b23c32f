"""Which array of a file goes into which weight of a model: all is checked before any of it moves.

`plan` lays two inventories, the file's and the model's, over each other: what
`keras_weights.assign` does for the published file, for files of all kinds.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minitl.naming import nearest
from minitl.storage.keras_weights import WeightFileError

Weights = Sequence[tuple[str, Any]]
Layers = Sequence[tuple[str, Weights]]


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Raise WeightFileError for a name that is there more than once."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise WeightFileError(f"the same {what} twice: {', '.join(map(repr, twice))}")


def plan(
    file_layers: Layers,
    model_layers: Layers,
    *,
    rename: Mapping[str, str] | None = None,
    by_name: bool = False,
    source: str | os.PathLike[str] = "the file",
) -> list[tuple[Any, np.ndarray]]:
    """Pair every weight of a model with its array; check all of it; return (slot, array) pairs.

    Args:
        file_layers: what `read_weights` gave: [(layer, [(weight, array), ...]), ...].
        model_layers: the same with slots for arrays: anything with `shape` and `dtype`, or a tuple
            that is the shape (float32 then).
        rename: {name in the file: name in the model}.
        by_name: as in Keras: only layers that both sides have.
        source: of the file layers, for the error.

    Layers are matched by name, those without weights left out. Inside a layer weights are matched
    by position and must have the same shape; a nested model's weights are first sorted by the inner
    layer that owns them, where both sides name the same owners. The arrays come in the slot's
    dtype, finite and C-contiguous; they may be the inventory's own, so copy them into the slots.
    Raises ONE WeightFileError with all that is missing, surplus, misshapen or not finite.
    """
    renamed = [((rename or {}).get(name, name), weights) for name, weights in file_layers]
    refuse_twice([name for name, _ in renamed], "layer in the file")
    refuse_twice([name for name, _ in model_layers], "layer in the model")
    in_file, in_model = ({n: w for n, w in side if w} for side in (renamed, model_layers))
    problems: list[str] = []
    pairs: list[tuple[Any, np.ndarray]] = []
    missing = [] if by_name else [name for name in in_model if name not in in_file]
    surplus = [] if by_name else [name for name in in_file if name not in in_model]
    sides = (
        (missing, in_model, surplus, "expected in the file ({}), found nothing"),
        (surplus, in_file, missing, "found in the file ({}), not in the model"),
    )
    for names, weights_of, others, text in sides:
        for name in names:
            shapes = ", ".join(_shape(slot) for _, slot in weights_of[name])
            near = nearest(name, others, cutoff=0.7)
            hint = f"; is it {near!r}?" if near else ""
            problems.append(f"layer {name!r}: {text.format(shapes)}{hint}")
    problems += _explain_top(missing, surplus)
    for name in in_model:
        if name in in_file:
            _match(name, in_file[name], in_model[name], pairs, problems)
    if not pairs and not problems and (in_file or in_model):  # else there is nothing to load
        problems.append("not one layer of the file is in the model")
    if problems:
        headline = f"the weights in {source} do not fit the model; nothing was changed:"
        raise WeightFileError(headline, problems)
    return pairs


def _match(layer: str, stored: Weights, slots: Weights, pairs: list, problems: list) -> None:
    """Match the weights of one layer; add to `pairs` what fits and to `problems` what does not."""
    ranks, other_ranks = _ranks(stored), _ranks(slots)
    if set(ranks.values()) == set(other_ranks.values()):
        # Sorting is stable, so within an owner the position decides. Keras writes a nested
        # model's frozen weights behind the others, but a layer's own always in one order.
        stored = sorted(stored, key=lambda item: ranks[item[0]])
        slots = sorted(slots, key=lambda item: other_ranks[item[0]])
    if len(stored) != len(slots):
        expected, found = _listing(slots), _listing(stored)
        problems.append(f"layer {layer!r}: expected {expected}, found {found} in the file")
        return
    for (name, slot), (stored_name, array) in zip(slots, stored, strict=True):
        where = f"{layer}: {name}"
        if stored_name != name:
            where += f" ({stored_name} in the file)"
        if _shape_of(slot) != _shape_of(array):
            cause = _likely_cause(_shape_of(slot), _shape_of(array))
            shapes = f"expected shape {_shape(slot)}, found {_shape(array)}"
            problems.append(f"{where}: {shapes}{cause}")
        elif array.dtype.kind != "f" and (array.ndim or array.dtype.kind != "i"):  # or a count
            problems.append(f"{where}: expected floating-point numbers, found {array.dtype}")
        else:
            dtype = np.dtype(getattr(slot, "dtype", np.float32))
            with np.errstate(over="ignore"):  # an overflow is found as 'not finite'
                cast = np.asarray(array, dtype=dtype, order="C")
            if wrong := not_finite_numbers(cast):
                problems.append(f"{where}: {wrong}")
            pairs.append((slot, cast))


def _ranks(weights: Weights) -> dict[str, tuple[str, int]]:
    """By weight the inner layer that owns it, as (kind, which of its kind): 'head/dense_4/bias' and
    'head/dense_7/bias' belong to the first and the second 'dense': a rebuilt model counts on."""
    owners = {}
    for name, _ in weights:
        path = ["", *name.split("/")[:-1]]
        # Keras's recurrent layers keep theirs in a cell, 'both/forward_lstm/lstm_cell/kernel'.
        while len(path) > 2 and path[-1] in ("lstm_cell", "gru_cell"):
            path.pop()
        owners[name] = path[-1]
    ranks: dict[str, tuple[str, int]] = {}
    seen: Counter[str] = Counter()
    for (kind, _), owner in sorted((numbered(owner), owner) for owner in set(owners.values())):
        ranks[owner] = kind, seen[kind]
        seen[kind] += 1
    return {name: ranks[owner] for name, owner in owners.items()}


def numbered(name: str) -> tuple[str, int]:
    """'dense_4' -> ('dense', 4), 'dense' -> ('dense', 0)."""
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if number.isdecimal() else (name, 0)


def not_finite_numbers(array: np.ndarray) -> str:
    if array.dtype.kind not in "fiub":
        return f"expected numbers, found {array.dtype}"
    finite = np.isfinite(array)
    if finite.all():
        return ""
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    count = f"{np.count_nonzero(~finite):,} of {array.size:,}"
    where = f"the first, {array[first]}, at {_shape(first)}"
    return f"expected finite numbers, found {count} that are not ({where})"


def _likely_cause(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    """What usually lies behind two shapes that differ."""
    if len(expected) == len(found) == 4:
        if expected == (found[2], found[3], found[1], found[0]):
            return " (OIHW, as PyTorch and ONNX keep it; minitl wants HWIO: transpose(2, 3, 1, 0))"
        if expected[:2] == found[:2] and expected[3] == found[3]:
            return f" (the input has {expected[2]} channels here, {found[2]} in the file)"
    if len(expected) == len(found) == 2:
        if expected == found[::-1]:
            return " (transposed, as PyTorch keeps dense kernels)"
        if expected[1] == found[1]:
            return " (another number of inputs: was the model built with another input_shape?)"
        if expected[0] == found[0]:
            return " (another number of units or classes)"
    return ""


def _explain_top(missing: Sequence[str], surplus: Sequence[str]) -> list[str]:
    """Say so when the two sides differ by the classifier of a published network."""
    tops = {"fc1", "fc2", "fc1000", "probs", "predictions"}
    if tops & set(surplus):
        has, built = "the classifier", "include_top=False"
        remedy = "take the file without top ('_notop'), or pass by_name=True"
    elif tops & set(missing):
        has, built = "no classifier", "include_top=True"
        remedy = "take the file with top, or build with include_top=False"
    else:
        return []
    cause = f"the file has {has} on top and the model was built with {built}"
    return [f"likely cause: {cause}; {remedy}"]


def _shape_of(slot: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in (slot if isinstance(slot, tuple | list) else slot.shape))


def _shape(slot: Any) -> str:
    shape = _shape_of(slot)
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _listing(weights: Weights) -> str:
    names = ", ".join(f"{name} {_shape(slot)}" for name, slot in weights)
    return f"{len(weights)} weight{'s' * (len(weights) != 1)} ({names})"
