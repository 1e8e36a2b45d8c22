"""DCGAN, 64 x 64 pixels (Radford et al. 2015): the generator's weights of PyTorch to ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.models.converters.batch_norm import folded
from mediamesh.models.converters.graph import FLOAT, GraphBuilder
from mediamesh.models.converters.torch_pickle import read_tensors
from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]

_EPSILON = 1e-5
_NOISE = 100
# Index of each transposed convolution in the generator's list of layers, its stride and padding; a normalisation
# follows all but the last.
_LAYERS = ((0, 1, 0), (3, 2, 1), (6, 2, 1), (9, 2, 1))
_LAST = (12, 2, 1)


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``: ``z`` [N, 100, 1, 1], standard normal, to ``image`` [N, 3, 64, 64] from -1 to 1.

    Args:
        sources: ``weights``, a file of torch.save.
        target: Folder to write into.

    Raises:
        BadWeights: the file holds another net.
    """
    tensors = read_tensors(sources["weights"])
    prefixes = [name.removesuffix("main.0.weight") for name in tensors if name.endswith("main.0.weight")]
    graph = GraphBuilder()
    image = graph.input("z", FLOAT, ["N", _NOISE, 1, 1])
    try:
        # A checkpoint may hold the critic beside the generator; the generator's first layer takes the noise.
        (prefix,) = [one for one in prefixes if tensors[f"{one}main.0.weight"].shape[0] == _NOISE]
        for index, stride, padding in _LAYERS:
            name = f"{prefix}main.{index}"
            weight, bias = folded(tensors, name, f"{prefix}main.{index + 1}", epsilon=_EPSILON, channel=1)
            given = (graph.weights(f"weight_{index}", weight), graph.weights(f"bias_{index}", bias))
            image = graph.add("Relu", _widen(graph, image, *given, stride=stride, padding=padding))
        index, stride, padding = _LAST
        weight = tensors[f"{prefix}main.{index}.weight"]
        image = _widen(graph, image, graph.weights(f"weight_{index}", weight), stride=stride, padding=padding)
    except (KeyError, ValueError) as error:
        raise BadWeights(f"{sources['weights'].name}: no generator of a DCGAN of 64 x 64 pixels: {error}") from error
    graph.output(graph.add("Tanh", image), "image", FLOAT, ["N", 3, 64, 64])
    graph.save("dcgan", target / "model.onnx", opset=17)


def _widen(graph: GraphBuilder, image: str, *weights: str, stride: int, padding: int) -> str:
    return graph.add(
        "ConvTranspose", image, *weights, kernel_shape=[4, 4], strides=[stride, stride], pads=[padding] * 4
    )
