"""Tensors lie in memory shared with the caller; a region that lies, shrinks or goes away hurts one request at most."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory as Object
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.client import connect
from mediamesh.inference.protocol import callers
from mediamesh.inference.protocol.shared_memory import SharedMemory
from mediamesh.inference.settings import Settings
from mediamesh.wire.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    NotImplementedByServer,
    Overloaded,
    PermissionDenied,
)
from tests.inference.conftest import inference_server

PAIR = np.array([[1.5, -2]], np.float32)


@pytest.fixture
def memory() -> Iterator[Any]:
    """64 KiB that this process owns, its first 8 bytes a tensor."""
    memory: Any = Object(f"mediamesh-{uuid.uuid4().hex}", create=True, size=65536)
    memory.buf[:8] = PAIR.tobytes()
    yield memory
    memory.close()
    memory.unlink()


@pytest.fixture
async def stub(tiny) -> AsyncIterator[GRPCInferenceServiceStub]:
    stub = GRPCInferenceServiceStub(tiny)
    yield stub
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())


def region(memory: Any, name: str = "r", offset: int = 0, size: int = 65536) -> pb.SystemSharedMemoryRegisterRequest:
    return pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{memory.name}", offset=offset, byte_size=size)


def place(parameters, name: str = "r", size: int = 8, offset: int = 0) -> None:
    parameters["shared_memory_region"].string_param = name
    parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        parameters["shared_memory_offset"].int64_param = offset


def doubling(**where) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", id="1")
    place(request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).parameters, **where)
    return request


def numbers(content: bytes | memoryview) -> Any:
    return np.frombuffer(content, np.float32).tolist()


async def test_input_and_output_lie_in_the_callers_memory(stub, memory) -> None:
    await stub.SystemSharedMemoryRegister(region(memory, offset=0))
    request = doubling()
    place(request.outputs.add(name="y").parameters, offset=4100, size=100)
    answer = await stub.ModelInfer(request)
    assert numbers(memory.buf[4100:4108]) == [3, -4]
    output = answer.outputs[0]
    assert output.parameters["shared_memory_region"].string_param == "r"
    assert output.parameters["shared_memory_byte_size"].int64_param == 8
    assert output.parameters["shared_memory_offset"].int64_param == 4100
    assert list(answer.raw_output_contents) == [b""]


async def test_a_region_may_begin_anywhere_in_its_object(stub, memory) -> None:
    memory.buf[5001:5009] = PAIR.tobytes()
    await stub.SystemSharedMemoryRegister(region(memory, offset=5000, size=100))
    answer = await stub.ModelInfer(doubling(offset=1))
    assert numbers(answer.raw_output_contents[0]) == [3, -4]


async def test_shared_and_sent_inputs_stand_side_by_side(stub, memory) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    request = pb.ModelInferRequest(model_name="pair", raw_input_contents=[np.ones(2, np.float32).tobytes()])
    place(request.inputs.add(name="a", datatype="FP32", shape=[1, 2]).parameters)
    request.inputs.add(name="b", datatype="FP32", shape=[1, 2])
    place(request.outputs.add(name="sum").parameters, offset=64)
    request.outputs.add(name="difference")
    answer = await stub.ModelInfer(request)
    assert numbers(memory.buf[64:72]) == [2.5, -1]
    # As in Triton, an output in shared memory has an empty entry, so that entries can be counted.
    assert [len(entry) for entry in answer.raw_output_contents] == [0, 8]
    assert numbers(answer.raw_output_contents[1]) == [0.5, -3]


async def test_texts_lie_in_shared_memory_too(stub, memory) -> None:
    texts = b"\x03\0\0\0tea\x00\0\0\0"
    memory.buf[: len(texts)] = texts
    await stub.SystemSharedMemoryRegister(region(memory))
    request = pb.ModelInferRequest(model_name="identity_BYTES")
    place(request.inputs.add(name="x", datatype="BYTES", shape=[1, 2]).parameters, size=len(texts))
    place(request.outputs.add(name="y").parameters, size=50, offset=100)
    await stub.ModelInfer(request)
    assert bytes(memory.buf[100 : 100 + len(texts)]) == texts


async def test_status_lists_what_is_registered_until_it_is_unregistered(stub, memory) -> None:
    for name in ("one", "two"):
        await stub.SystemSharedMemoryRegister(region(memory, name, offset=16, size=32))
    status = await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
    assert sorted(status.regions) == ["one", "two"]
    one = (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="one"))).regions["one"]
    assert (one.key, one.offset, one.byte_size) == (f"/{memory.name}", 16, 32)
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="one"))
    with pytest.raises(NotFound, match="no shared memory region 'one'"):
        await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="one"))
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="one"))
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"byte_size": 65537}, InvalidRequest, "has 65536 bytes, expected 65537 or more"),
        ({"offset": 65536, "byte_size": 1}, InvalidRequest, "has 65536 bytes, expected 65537 or more"),
        ({"offset": 2**64 - 1}, InvalidRequest, "expected 1 to 2"),
        ({"byte_size": 0}, InvalidRequest, "expected 1 to 2"),
        ({"key": "/mediamesh-nowhere"}, InvalidRequest, "there is no shared memory '/mediamesh-nowhere'"),
        ({"key": "/../etc/passwd"}, InvalidRequest, "no name of shared memory"),
        ({"key": "/"}, InvalidRequest, "no name of shared memory"),
        ({"key": "/.."}, InvalidRequest, "no name of shared memory"),
        ({"name": ""}, InvalidRequest, "expected the name of a region"),
    ],
)
async def test_a_region_that_is_not_what_it_is_said_to_be_is_refused(stub, memory, change, error, sentence) -> None:
    request = region(memory)
    request.MergeFrom(pb.SystemSharedMemoryRegisterRequest())
    for name, value in change.items():
        setattr(request, name, value)
    with pytest.raises(error, match=sentence):
        await stub.SystemSharedMemoryRegister(request)


async def test_a_name_is_taken_until_it_is_unregistered(stub, memory) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    with pytest.raises(AlreadyExists, match="region 'r' already"):
        await stub.SystemSharedMemoryRegister(region(memory, size=8))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"name": "other"}, "the shared memory region 'other', which is not registered"),
        ({"size": 7}, r"input 'x' \(FP32 \[1, 2\]\) holds 7 bytes, expected 8"),
        ({"offset": 65530}, "region 'r' has 65536 bytes, expected 65538 or more"),
        ({"offset": -1}, "needs shared_memory_offset, a number of bytes"),
        ({"size": 2**62, "offset": 2**62}, "region 'r' has 65536 bytes"),
    ],
)
async def test_an_input_that_is_not_in_its_region_is_refused(stub, memory, where, sentence) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    with pytest.raises(InvalidRequest, match=sentence) as raised:
        await stub.ModelInfer(doubling(**where))
    assert "double/1" in str(raised.value)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"name": "other"}, "output 'y' names the shared memory region 'other'"),
        ({"size": 7}, "output 'y' takes 8 bytes, shared_memory_byte_size allows 7"),
        ({"offset": 65530}, "region 'r' has 65536 bytes, expected 65538 or more"),
    ],
)
async def test_an_output_that_does_not_fit_its_region_is_refused(stub, memory, where, sentence) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    request = doubling()
    place(request.outputs.add(name="y").parameters, **where)
    with pytest.raises(InvalidRequest, match=sentence):
        await stub.ModelInfer(request)


async def test_contents_beside_a_region_and_a_surplus_entry_are_refused(stub, memory) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    request = doubling()
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    with pytest.raises(InvalidRequest, match="is in shared memory too"):
        await stub.ModelInfer(request)
    request = doubling()
    request.raw_input_contents.append(PAIR.tobytes())
    with pytest.raises(InvalidRequest, match="has 1 entries, expected 0"):
        await stub.ModelInfer(request)


async def test_a_region_that_its_owner_cut_short_is_refused_and_the_server_stays_up(stub, memory) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    os.ftruncate(memory._fd, 4)
    with pytest.raises(InvalidRequest, match="has 4 bytes, expected 8 or more"):
        await stub.ModelInfer(doubling())
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[PAIR.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    place(request.outputs.add(name="y").parameters, offset=4096)
    with pytest.raises(InvalidRequest, match="has 4 bytes, expected 4104 or more"):
        await stub.ModelInfer(request)
    os.ftruncate(memory._fd, 65536)
    memory.buf[:8] = PAIR.tobytes()
    assert numbers((await stub.ModelInfer(doubling())).raw_output_contents[0]) == [3, -4]


async def test_a_region_lives_until_the_requests_that_use_it_are_done(stub, memory, gate) -> None:
    await stub.SystemSharedMemoryRegister(region(memory))
    gate.shut()
    request = doubling()
    place(request.outputs.add(name="y").parameters, offset=64)

    async def infer() -> Any:
        return await stub.ModelInfer(request)

    asked = asyncio.create_task(infer())
    await gate.entered()
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="r"))
    gate.open()
    await asked
    assert numbers(memory.buf[64:72]) == [3, -4]
    with pytest.raises(InvalidRequest, match="not registered"):
        await stub.ModelInfer(doubling())


def open_at(memory: Any) -> int:
    """Return how many files of this process are this memory; others come and go with the connections of gRPC."""
    own, count = Path("/dev/shm", memory.name).stat(), 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += os.path.samestat(path.stat(), own)
    return count


def test_what_is_unregistered_is_closed(tmp_path, memory) -> None:
    regions = SharedMemory(Settings(model_repository=tmp_path))
    before = open_at(memory)
    regions.register(region(memory), is_local=True)
    view = regions.content(doubling().inputs[0].parameters)
    regions.unregister("r")
    assert numbers(view) == [1.5, -2]
    view.release()
    assert open_at(memory) == before


async def test_copied_inputs_are_read_as_they_are_when_the_request_comes(tiny_repository, memory, gate) -> None:
    async with (
        inference_server(tiny_repository, shared_memory="copy") as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        await stub.SystemSharedMemoryRegister(region(memory))
        gate.shut()

        async def infer() -> Any:
            return await stub.ModelInfer(doubling())

        asked = asyncio.create_task(infer())
        await gate.entered()
        memory.buf[:8] = bytes(8)
        os.ftruncate(memory._fd, 0)
        gate.open()
        assert numbers((await asked).raw_output_contents[0]) == [3, -4]


def test_regions_are_bounded_and_can_be_switched_off(tmp_path, memory) -> None:
    few = SharedMemory(Settings(model_repository=tmp_path, shared_memory_regions=1))
    few.register(region(memory), is_local=True)
    with pytest.raises(Overloaded, match="There are 1 regions, which is the limit"):
        few.register(region(memory, "other"), is_local=True)
    with pytest.raises(PermissionDenied, match="own host"):
        few.register(region(memory, "other"), is_local=False)
    off = SharedMemory(Settings(model_repository=tmp_path, shared_memory="off"))
    with pytest.raises(NotImplementedByServer, match="switched off"):
        off.register(region(memory), is_local=True)


class FakeContext:
    def __init__(self, peer: str, *metadata: tuple[str, str]) -> None:
        self._peer, self._metadata = peer, metadata

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "forwarded", "local"),
    [
        ("ipv4:127.0.0.1:5", None, True),
        ("ipv6:%5B::1%5D:5", None, True),
        ("unix:", None, True),
        ("ipv4:192.0.2.77:5", None, False),
        ("ipv4:127.0.0.1:5", "127.0.0.1", True),
        ("ipv4:127.0.0.1:5", "127.0.0.1, 198.51.100.9", False),
        ("ipv4:127.0.0.1:5", "somebody", False),
        ("ipv4:127.0.0.1:5", "0.0.0.0", False),
    ],
)
def test_a_caller_is_local_where_its_address_and_that_behind_a_proxy_are(peer, forwarded, local) -> None:
    metadata = [("x-forwarded-for", forwarded)] if forwarded else []
    context: callers.Context = FakeContext(peer, *metadata)  # type: ignore[assignment]
    assert callers.is_local(context) is local


async def test_memory_of_a_gpu_is_refused_and_none_is_listed(stub) -> None:
    assert not (await stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())).regions
    with pytest.raises(NotImplementedByServer, match="maps no CUDA memory"):
        await stub.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name="gpu", byte_size=8))
    await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
