"""Tensors in memory that client and server share, for callers on the server's own host: Linux only.

A region holds a fixed number of slots of one size. Whoever takes a slot writes its tensor there and names it in a
request, in place of an array; only the name travels. The server reads it while the request runs, so a slot must not be
changed before the answer is there. Where none comes, as the time was up, say, nobody knows how long the server is still
at it: such a slot is held back for a while before the next one gets it.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import secrets
from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client.inference.answers import is_answer
from mediamesh.wire.errors import AlreadyExists, InvalidRequest, MeshError
from mediamesh.wire.tensors import datatype_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable, Sequence

    from mediamesh.client.inference.server import Server

    Array = np.ndarray[Any, Any]
    _Placed = pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor

__all__ = ["SharedTensor", "SharedTensors", "answered", "registered_anew", "shared_of", "shared_tensors"]

_OBJECTS = Path("/dev/shm")  # noqa: S108 - where Linux keeps the objects of shm_open
# Slots begin at such a boundary, so that vector instructions may read them.
_ALIGNMENT = 64
# For how long a server may go on with a request of which nothing was heard.
_HELD_BACK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """A tensor in a slot of shared memory; takes the place of an array in a request.

    Attributes:
        array: The tensor; write it before it is sent, and not again before the answer is there.
        owner: Where it lies.
        offset: Where in the region it begins, in bytes.
    """

    array: Array
    owner: SharedTensors
    offset: int

    def describe(self, tensor: pb.ModelInferRequest.InferInputTensor) -> None:
        """Say in a request's input what it is and where it lies."""
        tensor.datatype = datatype_of(self.array)
        tensor.shape.extend(self.array.shape)
        self.place(tensor)

    def place(
        self, tensor: pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor
    ) -> None:
        """Say where an input lies, or where an output shall go."""
        tensor.parameters["shared_memory_region"].string_param = self.owner.name
        tensor.parameters["shared_memory_byte_size"].int64_param = self.array.nbytes
        if self.offset:
            tensor.parameters["shared_memory_offset"].int64_param = self.offset


class SharedTensors:
    """A region of slots; get it from :meth:`InferenceClient.shared_tensors`.

    Attributes:
        name: What the servers call the region.
    """

    def __init__(self, name: str, memory: mmap.mmap, slot_bytes: int, slots: int) -> None:
        self.name = name
        self._memory, self._slot_bytes = memory, slot_bytes
        self._size = slot_bytes * slots
        self._doubtful: set[int] = set()
        self._held_back: dict[int, asyncio.TimerHandle] = {}
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self._free.put_nowait(slot * slot_bytes)

    @asynccontextmanager
    async def take(self, shape: Sequence[int], dtype: Any = np.float32) -> AsyncGenerator[SharedTensor]:
        """Yield a tensor in a slot, which holds what was there before; waits until one is free.

        A slot that was in a request without an answer is free half a minute later.

        Args:
            shape: Its shape, the batch dimension included.
            dtype: Type of its elements; not BYTES, whose size is not known before.

        Raises:
            InvalidRequest: it does not fit into a slot, or has a type without a size.
        """
        given = np.dtype(dtype)
        size = math.prod(shape) * given.itemsize
        if given.hasobject or size > self._slot_bytes:
            raise InvalidRequest.of_field(
                "shape", f"{tuple(shape)} of {given} takes {size} bytes, a slot has {self._slot_bytes}"
            )
        offset = await self._free.get()
        try:
            array = np.frombuffer(self._memory, given, math.prod(shape), offset).reshape(shape)
            yield SharedTensor(array, self, offset)
        finally:
            self._give_back(offset)

    def doubt(self, tensor: SharedTensor) -> None:
        """Note that a server may still read or write a tensor that is taken."""
        self._doubtful.add(tensor.offset)

    def close(self) -> None:
        """Forget what is held back."""
        for timer in self._held_back.values():
            timer.cancel()
        self._held_back.clear()

    def _give_back(self, offset: int) -> None:
        self._held_back.pop(offset, None)
        if offset in self._doubtful:
            self._doubtful.discard(offset)
            loop = asyncio.get_running_loop()
            self._held_back[offset] = loop.call_later(_HELD_BACK_SECONDS, self._give_back, offset)
        else:
            self._free.put_nowait(offset)

    async def register(self, server: Server) -> bool:
        """Tell a server of the region; false when it knows it already.

        Raises:
            MeshError: it does not share memory with this client.
        """
        request = pb.SystemSharedMemoryRegisterRequest(name=self.name, key=f"/{self.name}", byte_size=self._size)
        try:
            await server.unary("SystemSharedMemoryRegister", request)
        except AlreadyExists:
            return False
        return True

    async def unregister(self, server: Server) -> None:
        """Let a server forget the region; one that is away has forgotten it."""
        with suppress(MeshError):
            request = pb.SystemSharedMemoryUnregisterRequest(name=self.name)
            await server.unary("SystemSharedMemoryUnregister", request, timeout=2)


@asynccontextmanager
async def shared_tensors(servers: Sequence[Server], slot_bytes: int, slots: int) -> AsyncGenerator[SharedTensors]:
    """Make a region and register it with all servers for as long as the block lasts.

    Raises:
        MeshError: a server does not share memory with this client.
    """
    size = math.ceil(slot_bytes / _ALIGNMENT) * _ALIGNMENT
    name = f"mediamesh-{secrets.token_hex(8)}"
    path = _OBJECTS / name
    memory = _made(path, size * slots)
    shared = SharedTensors(name, memory, size, slots)
    try:
        for server in servers:
            await shared.register(server)
        yield shared
    finally:
        shared.close()
        for server in servers:
            await shared.unregister(server)
        path.unlink()
        with suppress(BufferError):  # an array of the caller's still lives; the mapping goes with it
            memory.close()


def shared_of(
    inputs: Mapping[str, object], outputs: Sequence[str] | Mapping[str, int | SharedTensor]
) -> list[SharedTensor]:
    """Return the tensors of a request that lie in shared memory."""
    wanted = outputs.values() if isinstance(outputs, Mapping) else ()
    return [tensor for tensor in (*inputs.values(), *wanted) if isinstance(tensor, SharedTensor)]


@contextmanager
def answered(tensors: Iterable[SharedTensor]) -> Generator[None]:
    """Ask a server in this block; left without its answer, the slots of the tensors are held back."""
    try:
        yield
    except BaseException as error:
        if not is_answer(error):
            for tensor in tensors:
                tensor.owner.doubt(tensor)
        raise


async def registered_anew(server: Server, tensors: Iterable[SharedTensor], error: MeshError) -> bool:
    """Tell whether a request failed because its server, started again, had forgotten its regions, which it has now."""
    regions = {tensor.owner for tensor in tensors}
    if not regions or not (isinstance(error, InvalidRequest) or type(error) is MeshError):
        return False
    return any([await region.register(server) for region in regions])


def _made(path: Path, size: int) -> mmap.mmap:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, size)
        return mmap.mmap(file, size)
    finally:
        os.close(file)
