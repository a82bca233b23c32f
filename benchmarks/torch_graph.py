"""A model of minitl's in PyTorch: its own operations, call by call along minitl's graph."""

from __future__ import annotations

from typing import Any

import numpy as np


class TorchGraph:
    """Called with images (N, C, H, W), it gives the model's output; or the logits, if `learns` is
    True and the last layer is a softmax. What is trainable then asks for gradients, and ReLU
    writes over what it is given, as in PyTorch's own networks."""

    def __init__(self, model: Any, learns: bool = False):
        self.learning: list[Any] = []
        self.steps = []
        for call in model.graph.calls:
            layer = call.layer
            function = _layer(layer, weights := _weights(layer), learns)
            self.steps.append(([id(t) for t in call.inputs], id(call.outputs[0]), function))
            if learns and layer.trainable:
                self.learning += [w.requires_grad_() for w in weights if w is not None]
        self.given, self.wanted = id(model.inputs[0]), id(model.outputs[0])

    def __call__(self, images: Any) -> Any:
        values: dict[int, Any] = {self.given: images}
        for reads, writes, function in self.steps:
            values[writes] = function(*[values[key] for key in reads])
        return values[self.wanted]

    def parameters(self) -> list[Any]:
        return self.learning


def _weights(layer: Any) -> list[Any]:
    """A layer's weights, kernels of convolutions as PyTorch has them."""
    import torch

    weights = [torch.from_numpy(np.array(w)) for w in layer.get_weights()]
    if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D"):
        order = (2, 3, 0, 1) if type(layer).__name__ == "DepthwiseConv2D" else (3, 2, 0, 1)
        kernel = weights[0].permute(*order).contiguous(memory_format=torch.channels_last)
        return [kernel, weights[1] if layer.use_bias else None]
    return weights


def _layer(layer: Any, weights: list[Any], learns: bool) -> Any:
    """PyTorch's function for a layer."""
    import torch
    import torch.nn.functional as F

    kind = type(layer).__name__
    acts: dict[str, Any] = {"relu": F.relu_ if learns else F.relu, "silu": F.silu}
    acts["softmax"] = lambda x: x if learns else x.softmax(-1)
    acts |= {"sigmoid": torch.sigmoid, "linear": lambda x: x}
    act = acts[getattr(getattr(layer, "activation", None), "__name__", "linear")]
    if kind in ("Conv2D", "DepthwiseConv2D"):
        kernel, bias = weights
        groups = len(kernel) if kind == "DepthwiseConv2D" else 1
        pad = [k // 2 if layer.padding == "same" else 0 for k in layer.kernel_size]
        if layer.padding == "same" and layer.strides != (1, 1) and layer.kernel_size != (1, 1):
            return lambda x: act(
                F.conv2d(_around(x, layer), kernel, bias, layer.strides, 0, 1, groups)
            )
        return lambda x: act(F.conv2d(x, kernel, bias, layer.strides, pad, 1, groups))
    if kind == "BatchNormalization":
        gamma, beta, mean, variance = weights
        return lambda x: F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
    if kind == "Normalization":
        both = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (layer.mean, layer.variance))
        mean, variance = map(torch.from_numpy, both)
        return lambda x: (x - mean) / variance.sqrt()
    if kind == "Dense":
        return lambda x: act(torch.addmm(weights[1], x, weights[0]))
    (top, bottom), (left, right) = layer.padding if kind == "ZeroPadding2D" else ((0, 0), (0, 0))
    return {
        "ReLU": F.relu6 if getattr(layer, "max_value", None) == 6 else acts["relu"],
        "Activation": act,
        "Add": torch.add,
        "Multiply": torch.mul,
        "Dropout": lambda x: x,
        "Rescaling": lambda x: x * getattr(layer, "scale", 1) + getattr(layer, "offset", 0),
        "ZeroPadding2D": lambda x: F.pad(x, (left, right, top, bottom)),
        "MaxPooling2D": lambda x: F.max_pool2d(x, layer.pool_size, layer.strides),
        "GlobalAveragePooling2D": lambda x: x.mean((2, 3)),
        "Reshape": lambda x: x.reshape(len(x), -1, 1, 1),
    }[kind]


def _around(x: Any, layer: Any) -> Any:
    """Zeros as "same" puts them: the odd one at the end."""
    import torch.nn.functional as F

    sides: list[int] = []
    for size, kernel, stride in zip(
        x.shape[:1:-1], layer.kernel_size[::-1], layer.strides[::-1], strict=True
    ):
        more = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        sides += [more // 2, more - more // 2]
    return F.pad(x, sides)
