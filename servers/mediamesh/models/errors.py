"""What can go wrong with the store, as branches of the one exception tree."""

from __future__ import annotations

from mediamesh.wire.errors import FailedPrecondition, InvalidRequest

__all__ = ["BadWeights", "ManifestError", "PullFailed"]


class ManifestError(InvalidRequest):
    """The manifest is wrong; the text names file, entry and key."""


class PullFailed(FailedPrecondition):
    """A model could not be fetched or made; the text says what would help."""


class BadWeights(PullFailed):
    """A file of weights is not what its converter expects."""
