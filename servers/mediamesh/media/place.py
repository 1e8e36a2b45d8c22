"""Where objects are: keys as the contract spells them, and the addresses made of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mediamesh.wire.errors import InvalidRequest, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Collection

    from mediamesh.api.media.v1.media_service_pb2 import MediaPlace

__all__ = ["EXTENSIONS", "Addresses", "object_key", "pointer_key"]

EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/webm": "webm",
    "audio/mp4": "m4a",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "application/pdf": "pdf",
}

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_KEY = re.compile(rf"({_PART})/{_PART}/{_PART}/{_PART}/[A-Za-z0-9][A-Za-z0-9._-]{{0,160}}")


def object_key(place: MediaPlace, mime_type: str) -> str:
    """Return a key that no object has yet; the time in it goes to the microsecond."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    folder = f"{place.workspace_id}/{place.flow_id}/{place.execution_id}/{place.node_id}"
    return f"{folder}/{place.pin_name}_{time}.{EXTENSIONS.get(mime_type, 'bin')}"


def pointer_key(workspace_id: str, sha256: str) -> str:
    """Return the key under which a workspace keeps the key of the object with these bytes.

    It cannot meet an object's key, as the parts of those do not begin with a dot.
    """
    return f"{workspace_id}/.sha256/{sha256}"


class Addresses:
    """The addresses of one bucket, and of the workspaces in it that are served."""

    def __init__(self, bucket: str, workspaces: Collection[str] = ()) -> None:
        self._bucket = bucket
        self._workspaces = frozenset(workspaces)

    def url(self, key: str) -> str:
        """Return the address of an object."""
        return f"s3://{self._bucket}/{key}"

    def key(self, url: str) -> str:
        """Return the key that an address names.

        Raises:
            PermissionDenied: it lies in another bucket, or in a workspace that is not served.
            InvalidRequest: it is no address of a media object.
        """
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if bucket != self._bucket:
            raise PermissionDenied(
                f"url: {bucket} is not the bucket of this server; it serves s3://{self._bucket}/ only.",
                field="url",
                bucket=bucket,
            )
        if (form := _KEY.fullmatch(key)) is None:
            raise InvalidRequest.of_field(
                "url",
                "is no media object; the form is "
                f"s3://{self._bucket}/{{workspace}}/{{flow}}/{{execution}}/{{node}}/{{pin}}_{{timestamp}}.{{ext}}",
            )
        self.admit(form[1], field="url")
        return key

    def admit(self, workspace_id: str, *, field: str) -> None:
        """Raise :class:`PermissionDenied` when the workspace is not served."""
        if self._workspaces and workspace_id not in self._workspaces:
            raise PermissionDenied(
                f"{field}: this server does not serve the workspace {workspace_id}.",
                field=field,
                workspace_id=workspace_id,
            )
