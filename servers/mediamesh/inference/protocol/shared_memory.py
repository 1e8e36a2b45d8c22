"""Regions of POSIX shared memory that clients on this host register, so that tensors need not travel.

An input is a view of the mapped region, without a copy; an output is written into it with one. Touching a page that the
owner has cut off its object since would end the process (SIGBUS), so:

- outputs are written by ``pwrite``, which no truncation hurts;
- the size of the object is asked anew for every request, and a region that became too short is refused;
- who does not trust the owners of regions sets ``shared_memory`` to ``copy``: inputs are then read by ``pread``. With
  ``map``, an owner that shrinks its object, or changes it, while a request of its own runs can end the server, as it
  can end Triton.

A region that is unregistered while requests use it lives until the last of them is done: their views hold it.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.wire.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    NotImplementedByServer,
    Overloaded,
    PermissionDenied,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.inference.settings import Settings

    Parameters = Mapping[str, pb.InferParameter]

__all__ = ["Region", "Room", "SharedMemory"]

_OBJECTS = Path("/dev/shm")  # noqa: S108 - where Linux keeps the objects of shm_open
_REGION, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


class Region:
    """A part of a shared memory object, open for as long as anything refers to it.

    Args:
        name: What requests call it.
        key: Name of the object.
        offset: Where in the object it begins, in bytes.
        size: Its size in bytes.

    Raises:
        InvalidRequest: there is no such object.
        PermissionDenied: the object is another user's.
        ValueError: the object is too short.
    """

    def __init__(self, name: str, key: str, offset: int, size: int) -> None:
        self.name, self.key, self.offset, self.size = name, key, offset, size
        self._start = offset % mmap.ALLOCATIONGRANULARITY
        self._file = _opened(key)
        self._check(0, size)
        self._mapped = mmap.mmap(
            self._file, self._start + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset - self._start
        )

    def __del__(self) -> None:
        # The mapping goes with its last view; the file with the last room that an output may be written into.
        if hasattr(self, "_file"):
            os.close(self._file)

    def view(self, offset: int, size: int) -> memoryview:
        """Return a part of the region, which stays mapped as long as the view lives.

        Raises:
            ValueError: the part is not in the region, or no longer in the object.
        """
        self._check(offset, size)
        begin = self._start + offset
        return memoryview(self._mapped)[begin : begin + size]

    def read(self, offset: int, size: int) -> memoryview:
        """Return a copy of a part of the region; raises what :meth:`view` does."""
        self._check(offset, size)
        content = os.pread(self._file, size, self.offset + offset)
        if len(content) < size:
            raise ValueError(f"region {self.name!r} was cut short by its owner while it was read")
        return memoryview(content)

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Write into the region; raises what :meth:`view` does, and when the server may not write into it."""
        self._check(offset, len(content))
        left, at = memoryview(content).cast("B"), self.offset + offset
        try:
            while left:
                written = os.pwrite(self._file, left, at)
                left, at = left[written:], at + written
        except OSError as error:
            raise ValueError(f"region {self.name!r} cannot be written: {error.strerror}") from error

    def _check(self, offset: int, size: int) -> None:
        if offset + size > self.size:
            raise ValueError(f"region {self.name!r} has {self.size} bytes, expected {offset + size} or more")
        end = self.offset + offset + size
        if end > (now := os.fstat(self._file).st_size):
            raise ValueError(
                f"region {self.name!r}: shared memory {self.key!r} has {now} bytes, expected {end} or more"
            )


class Room(NamedTuple):
    """Where in a region an output goes.

    Attributes:
        region: The region.
        offset: Where in it the output begins, in bytes.
        size: Most bytes that the output may take.
    """

    region: Region
    offset: int
    size: int

    def write(self, content: bytes | memoryview, parameters: Parameters) -> None:
        """Write an output, and tell in its parameters where it lies.

        Raises:
            ValueError: it does not fit.
        """
        if len(content) > self.size:
            raise ValueError(f"takes {len(content)} bytes, {_SIZE} allows {self.size}")
        self.region.write(self.offset, content)
        parameters[_REGION].string_param = self.region.name
        parameters[_SIZE].int64_param = len(content)
        if self.offset:
            parameters[_OFFSET].int64_param = self.offset


class SharedMemory:
    """The registered regions.

    Args:
        settings: How inputs are read, and how many regions there may be.
    """

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.shared_memory
        self._most = settings.shared_memory_regions
        self._regions: dict[str, Region] = {}

    def register(self, request: pb.SystemSharedMemoryRegisterRequest, *, is_local: bool) -> None:
        """Map a region.

        Args:
            request: What to map, and under which name.
            is_local: Whether the caller runs on this host; others have no shared memory here.

        Raises:
            InvalidRequest: there is no such object, or it is shorter than the request says.
            AlreadyExists: the name is taken.
            Overloaded: there are too many regions.
            PermissionDenied: the caller is elsewhere, or the object is another user's.
            NotImplementedByServer: shared memory is switched off.
        """
        if self._mode == "off":
            raise NotImplementedByServer("Shared memory is switched off (MEDIAMESH_INFERENCE_SHARED_MEMORY).")
        if not is_local:
            raise PermissionDenied("Only a caller on the server's own host may register its shared memory.")
        if not request.name:
            raise InvalidRequest.of_field("name", "is empty, expected the name of a region")
        if request.name in self._regions:
            raise AlreadyExists(f"There is a region {request.name!r} already; unregister it first.")
        if not request.byte_size or request.byte_size + request.offset >= 1 << 63:
            raise InvalidRequest.of_field(
                "byte_size", f"is {request.byte_size} at offset {request.offset}, expected 1 to 2^63 bytes in all"
            )
        if len(self._regions) >= self._most:
            raise Overloaded(f"There are {self._most} regions, which is the limit; unregister one.", limit=self._most)
        try:
            self._regions[request.name] = Region(request.name, request.key, request.offset, request.byte_size)
        except (ValueError, OSError) as error:
            raise InvalidRequest.of_field("byte_size", str(error)) from None

    def unregister(self, name: str) -> None:
        """Forget a region, or all where the name is empty; one that is not there is forgotten already."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str) -> pb.SystemSharedMemoryStatusResponse:
        """List the regions, or one.

        Raises:
            NotFound: there is no region of that name.
        """
        if name and name not in self._regions:
            raise NotFound(f"There is no shared memory region {name!r}.")
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.values() if not name else [self._regions[name]]:
            entry = response.regions[region.name]
            entry.name, entry.key = region.name, region.key
            entry.offset, entry.byte_size = region.offset, region.size
        return response

    def content(self, parameters: Parameters) -> memoryview:
        """Return the bytes of an input that its parameters place in a region.

        Raises:
            ValueError: there is no such region, or it is too short.
        """
        region, offset, size = self._placed(parameters)
        return region.view(offset, size) if self._mode == "map" else region.read(offset, size)

    def room(self, parameters: Parameters) -> Room:
        """Return where an output goes that its parameters place in a region.

        Raises:
            ValueError: there is no such region, or it is too short.
        """
        region, offset, size = self._placed(parameters)
        if offset + size > region.size:
            raise ValueError(f"region {region.name!r} has {region.size} bytes, expected {offset + size} or more")
        return Room(region, offset, size)

    def _placed(self, parameters: Parameters) -> tuple[Region, int, int]:
        name = parameters[_REGION].string_param
        region = self._regions.get(name)
        if region is None:
            raise ValueError(f"names the shared memory region {name!r}, which is not registered")
        return region, _count(parameters, _OFFSET, 0), _count(parameters, _SIZE, None)


def _count(parameters: Parameters, name: str, default: int | None) -> int:
    given = parameters.get(name)
    if given is None and default is not None:
        return default
    if given is not None and given.WhichOneof("parameter_choice") in {"int64_param", "uint64_param"}:
        count = given.int64_param or given.uint64_param
        if count >= 0:
            return count
    raise ValueError(f"needs {name}, a number of bytes")


def _opened(key: str) -> int:
    """Open a shared memory object as shm_open does, for writing too where its owner lets us."""
    bare = key.lstrip("/")
    if not bare or "/" in bare or "\0" in bare or bare in {".", ".."} or len(bare.encode()) > 255:
        raise InvalidRequest.of_field("key", f"{key[:300]!r} is no name of shared memory, such as '/input'")
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            file = os.open(_OBJECTS / bare, os.O_RDWR | flags)
        except PermissionError:
            file = os.open(_OBJECTS / bare, os.O_RDONLY | flags)
    except FileNotFoundError:
        raise InvalidRequest.of_field("key", f"there is no shared memory {key!r} on the server's host") from None
    except PermissionError:
        raise PermissionDenied(f"The server may not open the shared memory {key!r}.") from None
    except OSError as error:
        raise InvalidRequest.of_field("key", f"shared memory {key!r} cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidRequest.of_field("key", f"{key!r} is no shared memory object")
    return file
