"""Which calls of a graph are computed at once: the one rule, and what carries it out.

Where no gradient is asked for, as in `predict` and in the frozen part of a model that trains,
nobody needs what a layer hands to the next one if that is its only reader. So a `Step` takes the
place of several calls in a row, each of these at most once, in this order:

    pad      ZeroPadding2D: the window finds the zeros where they would be
    filter   Conv2D or DepthwiseConv2D; every step has one
    norm     BatchNormalization, folded into kernel and bias
    add      Add of two, onto what another branch has computed
    relu     as a layer, if it is not the convolution's own; or a ReLU up to 6, or swish
    margin   ZeroPadding2D before a pool: zeros do not win against what passed ReLU
    pool     MaxPooling2D; of 2x2 after windows of 3x3, what it drops is never written

BatchNormalization outside of training scales and shifts every channel, and so do kernel and bias:

    gamma (x * k + b - mean) / s + beta = x * (k gamma / s) + (b - mean) gamma / s + beta

with s = sqrt(variance + epsilon). The folded arrays are kept with the kernel until one of the
weights that they come from is written; the weights themselves stay as they are, for training and
for files. `summary(fused=True)` lists the steps; after `use_kernels("reference")` there are none.

Where gradients are asked for, a Conv2D is still computed with a BatchNormalization that is not
training, the sum and the activation: what lies between is not needed, for the gradients of the
folded arrays are turned into those of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minitl import kernels, ops
from minitl.autograd import Array, Tensor, record, recording
from minitl.kernels.geometry import Geometry, sliding
from minitl.kernels.machine import ahead, memory
from minitl.layers.activation import Activation, ReLU
from minitl.layers.base import Call, Layer, around
from minitl.layers.convolution import Conv2D, MaxPooling2D
from minitl.layers.merging import Add
from minitl.layers.normalization import BatchNormalization
from minitl.layers.reshaping import ZeroPadding2D
from minitl.layers.separable import DepthwiseConv2D
from minitl.models.graph import Graph

ORDER = ("pad", "filter", "norm", "add", "relu", "margin", "pool")
KINDS = {
    ZeroPadding2D: "pad",
    Conv2D: "filter",
    DepthwiseConv2D: "filter",
    BatchNormalization: "norm",
    Add: "add",
    Activation: "relu",
    ReLU: "relu",
    MaxPooling2D: "pool",
}
NAMES = {ops.relu: "relu", ops.activation("relu6"): "relu6", ops.activation("silu"): "silu"}


def roles(calls: Sequence[Call]) -> dict[str, Any] | None:
    """{role: layer} if the calls, each the only reader of the one before, fit into one step.
    Layers may be changed at any time, so it is asked when they run as well."""
    found: dict[str, Any] = {}
    for call in calls:
        layer = call.layer
        role = KINDS.get(type(layer), "")  # of a class of the user's own nothing is known
        if role == "pad" and found:
            role = "margin"
        if role not in ORDER[max([ORDER.index(r) + 1 for r in found], default=0) :]:
            return None
        if layer.dtype != calls[0].layer.dtype or not _suits(role, layer, found):
            return None
        found[role] = layer
        if type(layer) is Conv2D and layer.fused:
            found["relu"] = layer
    return found


def _suits(role: str, layer: Any, before: dict[str, Any]) -> bool:
    """Whether a layer can play its role after those before."""
    if role == "pad":
        return True
    if role == "filter":
        margin = _margin(before.get("pad"))
        inside = layer.padding == "valid" and max(margin) < min(layer.kernel_size)
        plain = (layer.dilation_rate, vars(layer).get("groups", 1)) == ((1, 1), 1)
        return plain and layer.activation in (ops.relu, ops.linear) and (inside or not before)
    if "filter" not in before or (role == "norm" and layer.axis not in (-1, 3)):
        return False
    if role == "relu":
        return _activation(layer) is not None
    if role == "margin":
        return _activation(before.get("relu")) in ("relu", "relu6")
    if role == "add":
        return type(before["filter"]) is Conv2D
    if role == "pool" and "margin" in before:
        margin = _margin(before["margin"])
        return layer.padding == "valid" and max(margin) < min(layer.pool_size)
    return True


def _activation(layer: Any) -> str | None:
    """The name of what the layer in the role "relu" does, if a kernel does it; None for others."""
    if not isinstance(layer, ReLU):
        return None if layer is None else NAMES.get(layer.activation)
    known: dict[Any, str] = {(None, 0, 0): "relu", (6, 0, 0): "relu6"}
    return known.get((layer.max_value, layer.negative_slope, layer.threshold))


def _margin(layer: Any) -> tuple[int, int, int, int]:
    """Rows and columns of zeros that a ZeroPadding2D puts around: top, bottom, left, right."""
    return (0, 0, 0, 0) if layer is None else (*layer.padding[0], *layer.padding[1])


class Step:
    """Calls of which only the last one's output is read by others; it stands in their place."""

    training = None  # each call has its own

    def __init__(self, calls: list[Call]):
        self.calls, self.outputs = calls, calls[-1].outputs
        made = {id(t) for call in calls for t in call.outputs}
        self.inputs = [t for call in calls for t in call.inputs if id(t) not in made]
        self.known: tuple[int, Any, list[Any]] = (-1, None, [])  # at which `Layer.times_set`

    def weights(self) -> list[Any]:
        if self.known[0] != Layer.times_set:
            weights = [v for call in self.calls for v in call.layer.own_weights]
            self.known = Layer.times_set, roles(self.calls), weights
        return self.known[2]

    def run(self, arguments: list[Any], training: bool | None, rng: Any) -> Any:
        """At once, if that can be and no average is moved; else one by one."""
        told = around.get()[0] if training is None else training
        modes = [told if call.training is None else call.training for call in self.calls]
        weights, routine = self.weights(), memory.doing.routine
        if self.known[1] and not any(map(_moves, self.calls, modes)):
            y = at_once(self.known[1], recording(*arguments, *weights), *arguments)
            if y is not None:
                if routine is not None and routine.fixed(y.storage) is y.storage:
                    routine.whole = False  # it is NumPy's: by no kernel
                return y
        if routine is not None:
            routine.whole = False
        values = {id(t): value for t, value in zip(self.inputs, arguments, strict=True)}
        arguments.clear()
        for call, mode in zip(self.calls, modes, strict=True):
            given = [values[id(t)] for t in call.inputs]
            values[id(call.outputs[0])] = call.run(given, mode, rng)
        return values[id(self.outputs[0])]


def _moves(call: Call, training: bool | None) -> bool:
    """Whether a call normalises by the batch, and moves its averages."""
    layer = call.layer
    return bool(training) and type(layer) is BatchNormalization and layer.trainable


def at_once(layers: dict[str, Any], recorded: bool, x: Tensor, *added: Tensor) -> Tensor | None:
    """What a step's layers, by their roles, make of x; None where x has another shape or dtype than
    they take, about which they can say more themselves, and where `with_record` gives None."""
    layer, a = layers["filter"], x.storage
    if any(t.dtype != layer.dtype for t in (x, *added)) or a.ndim != 4:
        return None
    layer.prepare(x.shape)
    geometry = _with_margin(layers.get("pad"), layer.kernel_size, layer, a)
    if added and added[0].shape != (len(a), *geometry.out_size, layer.filters):
        return None
    if recorded:
        return with_record(layers, geometry, x, *added)
    weights = Weights.of(layer, layers.get("norm"))
    name = _activation(layers.get("relu"))
    pool = layers.get("pool")
    # Of a Conv2D's kernel; the others are a pass more.
    own = name if name == "relu" or (name == "relu6" and not added and pool is None) else None
    given = (a, weights.kernel, weights.bias, geometry, own)
    if type(layer) is DepthwiseConv2D:
        own = name  # whose kernel does them all
        y = kernels.depthwise_conv2d(a, weights.kernel, geometry, weights.bias, own)
    elif added:
        y = kernels.conv2d_onto(added[0].storage, *given, weights.cache)
    elif pool and "margin" not in layers and _halves(pool, layer) and own == name:
        return Tensor(kernels.conv2d_max_pool2d(*given, weights.cache))
    else:
        y = kernels.conv2d(*given, weights.cache)
    if own != name:
        y = kernels.relu6(y, y) if name == "relu6" else kernels.silu(y, y)
    if pool is not None:
        y = kernels.max_pool2d(y, _with_margin(layers.get("margin"), pool.pool_size, pool, y))
    return Tensor(y)


def with_record(
    layers: dict[str, Any], geometry: Geometry, x: Tensor, *added: Tensor
) -> Tensor | None:
    """The same where gradients will be asked for. None where nothing would be saved, and where the
    kernels are `precise`, of which none adds another branch."""
    layer, norm, pool = layers["filter"], layers.get("norm"), layers.get("pool")
    alone = norm is None or (added and layer.kernel_size != (1, 1))
    if type(layer) is not Conv2D or alone or kernels.current_kernels() == "precise":
        return None
    (kernel, bias), name = folded(layer, norm), _activation(layers.get("relu"))
    a, k, own = x.storage, kernel.storage, None if name == "silu" else name
    if added:
        y = kernels.conv2d_onto(added[0].storage, a, k, bias.storage, geometry, own)
    else:
        y = kernels.conv2d(a, k, bias.storage, geometry, own, None, True)

    @ops.once
    def both(g: Array) -> tuple[Array, Any]:
        if own == "relu" and bias.requires_grad:
            return kernels.bias_relu_gradient(g, y)
        if own is not None:  # whose gradient comes from y alone
            g = (kernels.relu_gradient if own == "relu" else kernels.relu6_gradient)(g, y)
        return g, kernels.bias_gradient(g) if bias.requires_grad else None

    dx = (x, lambda g: kernels.conv2d_input_gradient(g, k, geometry))
    dk = (kernel, lambda g: kernels.conv2d_kernel_gradient(a, g, geometry))
    sides = [(t, lambda g: both(g)[0]) for t in (record("conv2d", y, dx, dk), *added)]
    out = record(own or "conv2d", y, *sides, (bias, lambda g: both(g)[1]))
    out = ops.silu(out) if name == "silu" else out
    if pool is None:
        return out
    slid = _with_margin(layers.get("margin"), pool.pool_size, pool, out.storage)
    most, winners = kernels.max_pool2d_with_winners(out.storage, slid)
    back = (out, lambda g: kernels.max_pool2d_gradient(g, winners, slid))
    return record("max_pool2d", most, back)


def _halves(pool: Any, layer: Any) -> bool:
    """Whether there is a kernel for a convolution and this pool in one pass."""
    halves = (pool.pool_size, pool.strides, pool.padding) == ((2, 2), (2, 2), "valid")
    return halves and (layer.kernel_size, layer.strides) == ((3, 3), (1, 1))


def _with_margin(padding: Any, window: Any, layer: Any, a: Array) -> Geometry:
    """How the window slides over the images `a`, and over what a ZeroPadding2D puts around."""
    top, bottom, left, right = pads = _margin(padding)
    size = (a.shape[1] + top + bottom, a.shape[2] + left + right)
    geometry = sliding(size, window, layer.strides, layer.padding)
    return geometry._replace(size=a.shape[1:3], pads=pads) if padding else geometry


class Weights(NamedTuple):
    """A convolution's arrays, or those that it makes with the BatchNormalization after it."""

    kernel: Array
    bias: Array | None
    cache: dict[Any, Any]  # of the kernels, for what they make of `kernel`
    made_of: tuple[Any, ...] = ()  # epsilon, the variables beside the kernel, and their versions

    @classmethod
    def of(cls, layer: Any, norm: Any) -> Weights:
        """Folded when first asked for, and again when one of the weights was written since."""
        bias = None if layer.bias is None else layer.bias.storage
        kernel, cache = layer.kernel.storage, layer.kernel.cache  # emptied when that is written
        if norm is None:
            return cls(kernel, bias, cache)
        others = (layer.bias, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        made_of = (norm.epsilon, *others, *(getattr(v, "version", 0) for v in others))
        known = cache.get(("folded", id(norm)))
        if known is None or not all(map(_same, known.made_of, made_of)):
            made = [t.storage for t in folded(layer, norm)]
            known = cls(made[0], made[1], {}, made_of)
            cache["folded", id(norm)] = known
        return known


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, (int, float)) and a == b)


def folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """The kernel and bias that do what the convolution `layer` and then `norm` do outside of
    training; they lead to the weights: with r = 1 / sqrt(variance + epsilon),

        kernel' = kernel gamma r                      bias' = (bias - mean) gamma r + beta
        dgamma = r (sum of dkernel' kernel) + r (bias - mean) dbias'
    """
    kernel, dtype = layer.kernel, layer.kernel.dtype
    mean, variance = (v.storage.astype(float) for v in (norm.moving_mean, norm.moving_variance))
    r, gamma = 1 / np.sqrt(variance + norm.epsilon), norm.gamma
    scale = r if gamma is None else r * gamma.storage
    centred = (0 if layer.bias is None else layer.bias.storage) - mean
    shift = centred * scale + (0 if norm.beta is None else norm.beta.storage)

    kept = not recording(kernel)

    def scaled(k: Array) -> Array:  # depthwise: (KH, KW, 1, C M)
        flat, none = k.reshape(-1, len(scale)), np.zeros(len(scale), dtype)
        if kept:  # for many calls: rounded once
            return (flat * scale).astype(dtype).reshape(k.shape)
        return kernels.scale_shift(flat, scale.astype(dtype), none).reshape(k.shape)

    def dgamma(g: Array) -> Array:
        return (np.einsum("hwcf,hwcf->f", g, kernel.storage, dtype=float) * r).astype(dtype)

    of_bias = (gamma, lambda g: (g * centred * r).astype(dtype))
    ends = (layer.bias, lambda g: (g * scale).astype(dtype)), of_bias, (norm.beta, lambda g: g)
    k = record("fold", scaled(kernel.storage), (kernel, scaled), (gamma, dgamma))
    return k, record("fold", shift.astype(dtype), *ends)


def steps(graph: Graph) -> list[Any]:
    """The graph's calls, each or several as a `Step`, in an order in which they can run. A step
    comes where its last call was: all that it reads is there by then."""
    if graph.together is None:
        groups = _groups(graph).values()
        graph.together = [Step(calls) if len(calls) > 1 else calls[0] for calls in groups]
        ahead.expect([call for call in map(_kernel_call, graph.calls) if call])
    return graph.together


def _kernel_call(call: Call) -> ahead.Call | None:
    """The kernel that a filter will call, and with what, for one image."""
    layer: Any = call.layer
    if KINDS.get(type(call.layer)) != "filter" or not _suits("filter", layer, {}):
        return None
    shape = call.inputs[0].shape[1:]
    if None in shape:
        return None
    geometry = sliding(shape[:2], layer.kernel_size, layer.strides, layer.padding)
    given = (1, *shape), layer.kernel.shape
    if type(layer) is DepthwiseConv2D:
        return "depthwise_conv2d", layer.dtype, given, geometry
    return "conv2d", layer.dtype, (*given, (layer.filters,)), geometry


def _groups(graph: Graph) -> dict[int, list[Call]]:
    """{id of the output: calls that make it at once}, in the order of their last calls."""
    found: dict[int, list[Call]] = {}
    reader = {id(t): call for call in graph.calls for t in call.inputs}
    for call in graph.calls:
        alone = call.form is None and len(call.outputs) == 1
        before = [id(t) for t in call.inputs if alone and graph.readers[id(t)] == 1]
        # Of two branches, Add is done by the one that is computed last.
        for tensor in sorted(set(before) & found.keys(), key=list(found).index, reverse=True):
            joined = [*found[tensor], call]
            if type(call.layer) is ZeroPadding2D:  # a margin, of use only if a pool comes next
                out = id(call.outputs[0])
                joined.append(reader[out] if graph.readers[out] == 1 and out in reader else call)
            if roles(joined):
                found[id(call.outputs[0])] = [*found.pop(tensor), call]
                break
        else:
            found[id(call.outputs[0])] = [call]
    return found
