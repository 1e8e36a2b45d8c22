"""Amounts in Kubernetes' notation, https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from mediamesh.wire.errors import InvalidRequest

__all__ = ["bytes_of", "cores_of", "mebibytes"]

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_SCALES = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def bytes_of(quantity: str, field: str) -> int:
    """Return the bytes that ``4Gi`` means.

    Raises:
        InvalidRequest: it is no quantity; names the field.
    """
    return math.ceil(_number(quantity, field))


def cores_of(quantity: str, field: str) -> Decimal:
    """Return the processors that ``500m`` means.

    Raises:
        InvalidRequest: it is no quantity; names the field.
    """
    return _number(quantity, field)


def mebibytes(amount: float) -> str:
    """Return bytes as a quantity, rounded up to whole MiB."""
    return f"{math.ceil(amount / (1 << 20))}Mi"


def _number(quantity: str, field: str) -> Decimal:
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise InvalidRequest.of_field(field, f"must be a quantity of Kubernetes such as 500m or 4Gi; is {quantity!r}")
    return Decimal(match[1]) * _SCALES.get(match[2] or "", Decimal(1))
