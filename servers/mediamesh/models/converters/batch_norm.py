"""Batch normalisation of a trained net, taken into the convolution before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]

__all__ = ["folded"]


def folded(
    tensors: Mapping[str, Array], convolution: str, norm: str, *, epsilon: float, channel: int = 0
) -> tuple[Array, Array]:
    """Return weight and bias of one convolution that does what a convolution and the normalisation after it do.

    With y = (x - mean) / sqrt(variance + epsilon) * gamma + beta (Ioffe and Szegedy 2015, algorithm 2), and no bias of
    the convolution's own.

    Args:
        tensors: The weights of the net.
        convolution: Name of the convolution in it.
        norm: Name of the normalisation in it.
        epsilon: What the net adds to the variance.
        channel: Axis of the weight that counts output channels: 0, or 1 in a transposed convolution.

    Returns:
        Weight, of the shape it had, and bias [channels]; float64.
    """
    weight = tensors[f"{convolution}.weight"].astype(np.float64)
    mean, variance = (tensors[f"{norm}.{name}"].astype(np.float64) for name in ("running_mean", "running_var"))
    scale = tensors[f"{norm}.weight"] / np.sqrt(variance + epsilon)
    along = [1] * weight.ndim
    along[channel] = -1
    return weight * scale.reshape(along), tensors[f"{norm}.bias"] - mean * scale
