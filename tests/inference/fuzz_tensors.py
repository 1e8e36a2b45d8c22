"""Throws broken requests at what decodes tensors: the splitter, the signature, the REST parser, and a live server.

Usage: ``python -m tests.inference.fuzz_tensors --minutes 10``. Whatever comes in, a request is either understood or
refused with InvalidRequest; anything else is a finding, which is written down with the seed that makes it again
(``--seed N --count 1``). A finding ends the run with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.client import connect
from mediamesh.inference.datatypes import TensorSpec
from mediamesh.inference.parsing import parse
from mediamesh.inference.protocol.shared_memory import SharedMemory
from mediamesh.inference.rest.generate import generate_request
from mediamesh.inference.rest.requests import infer_request
from mediamesh.inference.settings import Settings
from mediamesh.inference.tensors import Signature
from mediamesh.wire.errors import InvalidRequest, MeshError
from mediamesh.wire.infer_request import split
from mediamesh.wire.tensors import DTYPES
from tests.inference import models
from tests.inference.conftest import inference_server
from tests.inference.edge import Edge

__all__ = ["TARGETS", "body", "message", "mutated"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
KINDS = tuple(DTYPES)
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 2**31 - 1, -(2**31), 2**31, 2**32, 2**53, 2**62, 2**63 - 1, -(2**63))
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 2**64, -(2**70), "", "x", "\ud800", "\0", [], {},
    [[]], [[1], 2], {"a": 1}, "FP32", "BYTES", [2**40, 2**40],
)  # fmt: skip
SIGNATURES = {
    kind: Signature(f"m_{kind}/1", [TensorSpec("x", kind, (-1, 2))], [TensorSpec("y", kind, (-1, 2))], 4096)
    for kind in KINDS
}


def message(dice: random.Random) -> pb.ModelInferRequest:
    """Return a request, valid or with a few lies in it."""
    kind = dice.choice(KINDS)
    request = pb.ModelInferRequest(model_name=f"identity_{kind}", id=str(dice.randrange(9)))
    rows = dice.choice((0, 1, 2500, 8000)) if dice.random() < 0.3 else 1
    for _ in range(1 if dice.random() < 0.9 else dice.randrange(4)):
        shape = [rows, 2] if dice.random() < 0.8 else [dice.choice(NUMBERS) for _ in range(dice.randrange(20))]
        name = dice.choice(("x",) * 9 + ("z", ""))
        datatype = kind if dice.random() < 0.9 else dice.choice((*KINDS, "", "FP31"))
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if dice.random() < 0.7:
            request.raw_input_contents.append(_raw(dice, kind, 2 * rows))
        else:
            tensor.contents.fp32_contents.extend(dice.random() for _ in range(dice.randrange(4)))
            tensor.contents.int_contents.extend(dice.choice(NUMBERS[:8]) for _ in range(dice.randrange(4)))
            tensor.contents.bytes_contents.extend(dice.randbytes(3) for _ in range(dice.randrange(4)))
        _parameters(dice, tensor.parameters)
    if dice.random() < 0.3:
        _parameters(dice, request.outputs.add(name=dice.choice(("y", "y", "q"))).parameters)
    _parameters(dice, request.parameters)
    return request


def body(dice: random.Random) -> tuple[bytes, int | None]:
    """Return a body over HTTP, valid or with a few lies in it, and what its header says of its length."""
    request: Any = {
        "id": "1",
        "parameters": {"binary_data_output": dice.random() < 0.5},
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": dice.choice(KINDS), "data": [0, 1]}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    behind = b""
    if dice.random() < 0.5:
        tensor = request["inputs"][0]
        behind = _raw(dice, tensor["datatype"], 2)
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": len(behind)}
    for _ in range(dice.randrange(3)):
        request = _replaced(dice, request)
    text = json.dumps(request).encode()
    if dice.random() < 0.2:
        text = mutated(dice, text)
    length = len(text) if behind or dice.random() < 0.5 else None
    if dice.random() < 0.1:
        length = dice.choice((0, 1, len(text) + 1, 2**40))
    return text + behind, length


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Return bytes with a few of them changed, lost, doubled or moved."""
    broken = bytearray(data)
    for _ in range(1 + dice.randrange(4)):
        at = dice.randrange(len(broken) + 1)
        match dice.randrange(6):
            case 0 if broken:
                broken[at % len(broken)] = dice.randrange(256)
            case 1 if broken:
                broken[at % len(broken)] ^= 1 << dice.randrange(8)
            case 2:
                del broken[at : at + 1 + dice.randrange(8)]
            case 3:
                broken[at:at] = dice.randbytes(1 + dice.randrange(8))
            case 4:
                broken[at:at] = broken[max(0, at - 16) : at]
            case _:
                # The longest numbers, and those that claim more than there is.
                broken[at:at] = dice.choice((b"\xff" * 9 + b"\x01", b"\xff" * 5, b"\xff\xff\xff\xff\x0f", b"\x80" * 11))
    return bytes(broken)


def _raw(dice: random.Random, kind: str, elements: int) -> bytes:
    if kind == "BYTES":
        return b"".join(len(text).to_bytes(4, "little") + text for text in [b"tea"] * elements)
    size = elements * DTYPES[kind].itemsize
    content = np.zeros(size, np.uint8).tobytes() if kind == "BOOL" else dice.randbytes(size)
    return content if dice.random() < 0.9 else content[: dice.randrange(size + 1)]


def _parameters(dice: random.Random, parameters: Any) -> None:
    names = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification", "priority",
             "timeout", "sequence_id", "other")  # fmt: skip
    while dice.random() < 0.15:
        parameter = parameters[dice.choice(names)]
        match dice.randrange(5):
            case 0:
                parameter.int64_param = dice.choice(NUMBERS)
            case 1:
                parameter.string_param = dice.choice(("", "r", "x" * 2000))
            case 2:
                parameter.bool_param = True
            case 3:
                parameter.double_param = float("nan")
            case _:
                parameter.uint64_param = 2**64 - 1


def _replaced(dice: random.Random, value: Any) -> Any:
    """Return a value of JSON in which one part is another."""
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        if dice.random() < 0.1:
            return {**value, "other": dice.choice(VALUES)}
        return {**value, key: _replaced(dice, value[key])}
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return [*value[:at], _replaced(dice, value[at]), *value[at + 1 :]]
    return dice.choice(VALUES)


def split_like_protobuf(dice: random.Random) -> str:
    """The splitter understands what protobuf understands, and gives the same."""
    data = message(dice).SerializeToString()
    data = mutated(dice, data) if dice.random() < 0.8 else data
    try:
        whole = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        whole = None
    try:
        request = split(data)
    except DecodeError:
        assert whole is None, "protobuf understands it"
        return "refused"
    assert whole is not None, "protobuf refuses it"
    rebuilt = pb.ModelInferRequest()
    rebuilt.CopyFrom(request.message)
    rebuilt.raw_input_contents.extend(bytes(raw) for raw in request.raw)
    assert rebuilt.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    return "understood"


def bound_or_refused(dice: random.Random) -> str:
    """A request on the wire is bound to a signature, or refused."""
    data = message(dice).SerializeToString()
    data = mutated(dice, data) if dice.random() < 0.5 else data
    try:
        request = parse(data)
        SIGNATURES[dice.choice(KINDS) if dice.random() < 0.1 else _kind(request.message)].bind(request, MEMORY)
    except InvalidRequest:
        return "refused"
    return "understood"


def parsed_or_refused(dice: random.Random) -> str:
    """A body over HTTP is parsed and bound, or refused."""
    content, length = body(dice)
    if dice.random() < 0.1:
        content = mutated(dice, content)
    try:
        wanted = infer_request("m", "", memoryview(content), length)
        SIGNATURES[_kind(wanted.request.message)].bind(wanted.request, MEMORY)
    except InvalidRequest:
        return "refused"
    return "understood"


def generated_or_refused(dice: random.Random) -> str:
    """A flat object becomes a request, or is refused."""
    signature = SIGNATURES[dice.choice(KINDS)]
    given: Any = {"x": dice.choice((1, "tea", [1, 2], [[1, 2]])), "id": "1", "parameters": {"a": 1}, "b": 2}
    for _ in range(dice.randrange(3)):
        given = _replaced(dice, given)
    if not isinstance(given, dict):
        return "refused"
    try:
        signature.bind(generate_request("m", "", given, signature.inputs))
    except InvalidRequest:
        return "refused"
    return "understood"


def _kind(request: pb.ModelInferRequest) -> str:
    return request.inputs[0].datatype if request.inputs and request.inputs[0].datatype in DTYPES else "FP32"


MEMORY = SharedMemory(Settings(model_repository=Path(__file__).parent))
TARGETS: tuple[Callable[[random.Random], str], ...] = (
    split_like_protobuf,
    bound_or_refused,
    parsed_or_refused,
    generated_or_refused,
)


async def _live(dice: random.Random, channel: Any) -> str:
    """Ask a live server; it answers, and is there afterwards."""
    kind = dice.randrange(3)
    try:
        if kind == 0:
            content, length = body(dice)
            headers = {} if length is None else {"inference-header-content-length": str(length)}
            answer = await Edge(channel)("ModelInfer", f"identity_{dice.choice(KINDS)}", body=content, headers=headers)
            assert answer.status in {200, 400, 404, 413}, answer
            return "understood" if answer.status == 200 else "refused"
        data = message(dice).SerializeToString()
        data = mutated(dice, data) if dice.random() < 0.5 else data
        if kind == 1:
            await channel.unary_unary(INFER)(data)
            return "understood"
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        answers = [answer.error_message async for answer in stream(_once(data))]
        assert not any("The server failed" in error for error in answers), answers
        return "refused" if any(answers) else "understood"
    except MeshError as error:
        if "The server failed" in error.text:
            raise
        return "refused"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _repository(folder: Path) -> Path:
    for kind in models.TYPES:
        models.add_model(folder, f"identity_{kind}", models.identity(kind))
    return folder


async def _run(seed: int, count: int, seconds: float) -> int:
    outcomes: Counter[str] = Counter()
    findings = 0
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        async with (
            inference_server(_repository(Path(folder))) as port,
            connect(f"127.0.0.1:{port}") as channel,
        ):
            number = seed
            while number < seed + count and time.monotonic() < until:
                for target in TARGETS:
                    try:
                        outcome = target(random.Random(number))
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                        findings += 1
                        outcome = "FINDING"
                        sys.stdout.write(f"{target.__name__} seed {number}: {type(error).__name__}: {error}\n")
                    outcomes[f"{target.__name__}: {outcome}"] += 1
                if number % 10 == 0:
                    try:
                        outcome = await asyncio.wait_for(_live(random.Random(number), channel), 60)
                    except Exception as error:  # noqa: BLE001
                        findings += 1
                        outcome = "FINDING"
                        sys.stdout.write(f"live seed {number}: {type(error).__name__}: {error}\n")
                    outcomes[f"live server: {outcome}"] += 1
                number += 1
            given = pb.ModelInferRequest(model_name="identity_FP32", raw_input_contents=[bytes(8)])
            given.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            ask: Any = channel.unary_unary(INFER)
            await ask(given.SerializeToString())
    for name, times in sorted(outcomes.items()):
        sys.stdout.write(f"{times:>9}  {name}\n")
    sys.stdout.write(f"{findings} findings in {number - seed} rounds; the server still answers\n")
    return findings


def main() -> None:
    """Run for a time, or for a number of rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=sys.maxsize)
    given = parser.parse_args()
    sys.exit(bool(asyncio.run(_run(given.seed, given.count, given.minutes * 60))))


if __name__ == "__main__":
    main()
