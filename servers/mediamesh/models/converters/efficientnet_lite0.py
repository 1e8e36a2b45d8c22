"""EfficientNet-Lite0: weights of PyTorch to ONNX.

The net is that of Tan and Le 2019 without squeeze-and-excitation and with ReLU6 in place of swish, as its authors
published it for small devices. Padding is TensorFlow's SAME: an odd pixel goes to the right and to the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mediamesh.models.converters.batch_norm import folded
from mediamesh.models.converters.graph import FLOAT, GraphBuilder
from mediamesh.models.converters.torch_pickle import read_tensors
from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["convert"]

_PIXELS = 224
_EPSILON = 1e-3


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


_STAGES = (
    _Stage(1, 3, 1, 1, 32, 16),
    _Stage(2, 3, 2, 6, 16, 24),
    _Stage(2, 5, 2, 6, 24, 40),
    _Stage(3, 3, 2, 6, 40, 80),
    _Stage(3, 5, 1, 6, 80, 112),
    _Stage(4, 5, 2, 6, 112, 192),
    _Stage(1, 3, 1, 6, 192, 320),
)


@dataclass(frozen=True)
class _Image:
    """A tensor [N, channels, side, side]."""

    tensor: str
    side: int


class _Net:
    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.graph = GraphBuilder()
        self._tensors = tensors

    def convolution(
        self, image: _Image, name: str, norm: str, *, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> _Image:
        weight, bias = folded(self._tensors, name, norm, epsilon=_EPSILON)
        kernel = weight.shape[-1]
        side = -(-image.side // stride)
        missing = max((side - 1) * stride + kernel - image.side, 0)
        before = missing // 2
        given = (self.graph.weights(f"{name}.weight", weight), self.graph.weights(f"{name}.bias", bias))
        out = self.graph.add(
            "Conv",
            image.tensor,
            *given,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=groups,
            pads=[before, before, missing - before, missing - before],
        )
        if activate:
            out = self.graph.add("Clip", out, self.graph.number(0.0), self.graph.number(6.0))
        return _Image(out, side)

    def block(self, image: _Image, number: int, stage: _Stage, *, first: bool) -> _Image:
        """Add an inverted residual block: widen, filter each channel, narrow."""
        name = f"_blocks.{number}."
        channels, stride = (stage.inputs, stage.stride) if first else (stage.outputs, 1)
        wide = image
        if stage.expansion != 1:
            wide = self.convolution(image, f"{name}_expand_conv", f"{name}_bn0")
        groups = channels * stage.expansion
        wide = self.convolution(wide, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride, groups=groups)
        out = self.convolution(wide, f"{name}_project_conv", f"{name}_bn2", activate=False)
        if stride == 1 and channels == stage.outputs:
            return _Image(self.graph.add("Add", out.tensor, image.tensor), out.side)
        return out

    def classifier(self, image: _Image) -> str:
        pooled = self.graph.add("Flatten", self.graph.add("GlobalAveragePool", image.tensor), axis=1)
        given = (self.graph.weights(name, self._tensors[name]) for name in ("_fc.weight", "_fc.bias"))
        return self.graph.add("Gemm", pooled, *given, transB=1)


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``: ``input`` [N, 3, 224, 224] to ``logits`` [N, 1000].

    Args:
        sources: ``weights``, a file of torch.save.
        target: Folder to write into.

    Raises:
        BadWeights: the file holds another net.
    """
    try:
        net = _Net(read_tensors(sources["weights"]))
        image = _Image(net.graph.input("input", FLOAT, ["N", 3, _PIXELS, _PIXELS]), _PIXELS)
        image = net.convolution(image, "_conv_stem", "_bn0", stride=2)
        blocks = [(stage, index == 0) for stage in _STAGES for index in range(stage.repeats)]
        for number, (stage, first) in enumerate(blocks):
            image = net.block(image, number, stage, first=first)
        image = net.convolution(image, "_conv_head", "_bn1")
        net.graph.output(net.classifier(image), "logits", FLOAT, ["N", 1000])
    except KeyError as error:
        raise BadWeights(f"There is no tensor {error} in it; expected those of EfficientNet-Lite0.") from error
    net.graph.save("efficientnet_lite0", target / "model.onnx", opset=17)
