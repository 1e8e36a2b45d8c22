"""Inference requests as KServe v2 spells them in JSON, tensors in it or as bytes behind it, made those of the protocol.

The binary tensor data extension of Triton: the header ``Inference-Header-Content-Length`` says where the JSON ends; an
input whose parameters have ``binary_data_size`` takes so many of the bytes behind it, in the order of the inputs.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.datatypes import MOST_TEXTS
from mediamesh.inference.rest.elements import excerpt, raw_of
from mediamesh.kit.boundary import checked
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.infer_request import InferRequest
from mediamesh.wire.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from mediamesh.inference.datatypes import TensorSpec

__all__ = ["RestRequest", "infer_request", "json_object", "lone_tensor", "set_parameter"]

_KEYS = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})
_TENSOR_KEYS = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT_KEYS = frozenset({"name", "parameters"})
_ALL_BINARY, _BINARY, _BINARY_SIZE = "binary_data_output", "binary_data", "binary_data_size"
_SHARED_MEMORY = "shared_memory_region"
_INT64 = 1 << 63


class RestRequest(NamedTuple):
    """A request, and in which form its answer is wanted.

    Attributes:
        request: The request.
        all_binary: Whether outputs come as bytes behind the JSON where nothing else is said of them.
        binary: What is said of single outputs.
    """

    request: InferRequest
    all_binary: bool
    binary: Mapping[str, bool]


def infer_request(
    name: str, version: str, body: memoryview, header_length: int | None, *, most_texts: int = MOST_TEXTS
) -> RestRequest:
    """Return the request of a body; what is raw in it stays a view.

    Args:
        name: The model, from the address.
        version: Its version, from the address; may be empty.
        body: JSON, and bytes behind it.
        header_length: How much of the body is JSON; None is all.
        most_texts: Most elements of an input of BYTES.

    Raises:
        InvalidRequest: the body is no request; names the model, the field, and what was expected and given.
    """
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise InvalidRequest.of_field(
            "Inference-Header-Content-Length", f"is {length}, and the body has {len(body)} bytes", model=name
        )
    given = json_object(body[:length], f"model {name}")
    _known(given, _KEYS, f"model {name}", "")
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=_text(given, "id", f"model {name}"))
    parameters = _object(given.get("parameters", {}), f"model {name}", "parameters")
    all_binary = _flag(parameters, _ALL_BINARY, f"model {name}", "parameters", default=False)
    _set_parameters(message.parameters, parameters, {_ALL_BINARY}, f"model {name}", "parameters")
    inputs = _list(given.get("inputs", []), f"model {name}", "inputs")
    raw = _inputs(message, inputs, body[length:], most_texts)
    binary = _outputs(message, _list(given.get("outputs", []), f"model {name}", "outputs"), all_binary=all_binary)
    checked(message)
    return RestRequest(InferRequest(message, raw), all_binary, binary)


def lone_tensor(name: str, version: str, body: memoryview, inputs: Mapping[str, TensorSpec]) -> RestRequest:
    """Return the request of a body that is nothing but the bytes of a model's only input, for which a header says 0.

    Raises:
        InvalidRequest: the model has several inputs, or its shape does not follow from the number of bytes.
    """
    if len(inputs) != 1:
        raise InvalidRequest.of_field(
            "Inference-Header-Content-Length", f"is 0, and model {name} has {len(inputs)} inputs, expected one"
        )
    [spec] = inputs.values()
    message = pb.ModelInferRequest(model_name=name, model_version=version)
    raw: bytes | memoryview = body
    if spec.datatype == "BYTES":
        # One element, which is the body.
        shape, raw = [1] * len(spec.shape), len(body).to_bytes(4, "little") + body
    else:
        shape = _filled(spec.shape, len(body) // DTYPES[spec.datatype].itemsize)
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    return RestRequest(InferRequest(message, [raw]), all_binary=True, binary={})


def json_object(text: bytes | memoryview, where: str) -> dict[str, Any]:
    """Return the object of a JSON text; NaN and Infinity are numbers, as Triton reads them. No text is no object.

    Raises:
        InvalidRequest: it is none.
    """
    if not len(text):
        return {}
    try:
        value = json.loads(bytes(text))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{where}: the body must be UTF-8; byte {error.start} is not.") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{where}: the body must be JSON: {error.msg} at character {error.pos}.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: the body must be JSON: {str(error)[:200]}.") from None
    return _object(value, where, "the body")


def set_parameter(parameters: MutableMapping[str, pb.InferParameter], name: str, value: Any, where: str) -> None:
    """Add a parameter with a value of JSON.

    Raises:
        InvalidRequest: the value is null, a list or an object, or a number beyond 64 bits; or it, or the name, is text
            that UTF-8 cannot carry.
    """
    if not _carried(name):
        raise InvalidRequest(f"{where}: the parameter {name!r} has a name that UTF-8 cannot carry.")
    # The map makes an entry for a key that is read.
    match value:
        case bool():
            parameters[name].bool_param = value
        case int() if -_INT64 <= value < _INT64:
            parameters[name].int64_param = value
        case int() if 0 <= value < 2 * _INT64:
            parameters[name].uint64_param = value
        case float():
            parameters[name].double_param = value
        case str() if _carried(value):
            parameters[name].string_param = value
        case _:
            raise InvalidRequest(
                f"{where}: parameter {name!r} is {excerpt(value)}, expected a text, a number of 64 bits or a boolean."
            )


def _filled(shape: Sequence[int], elements: int) -> list[int]:
    """Return a shape of so many elements: of the sizes that are open, the last takes them all and the others are 1."""
    open_sizes = [index for index, size in enumerate(shape) if size < 0]
    filled = [max(1, size) if size < 0 else size for size in shape]
    if open_sizes:
        filled[open_sizes[-1]] = elements // max(1, math.prod(filled))
    return filled


def _inputs(
    message: pb.ModelInferRequest, given: list[Any], binary: memoryview, most_texts: int
) -> list[bytes | memoryview]:
    raw: list[bytes | memoryview] = []
    at = 0
    for index, entry in enumerate(given):
        field, where = f"inputs[{index}]", f"model {message.model_name}"
        tensor = _object(entry, where, field)
        _known(tensor, _TENSOR_KEYS, where, field)
        name, datatype = _text(tensor, "name", where, field), _text(tensor, "datatype", where, field)
        shape = _shape(tensor.get("shape"), f"{where}: input {name!r}", field)
        where = f"{where}: input {name!r} ({datatype} {shape})"
        parameters = _object(tensor.get("parameters", {}), where, f"{field}.parameters")
        added = message.inputs.add(name=name, datatype=datatype, shape=shape)
        _set_parameters(added.parameters, parameters, {_BINARY_SIZE}, where, f"{field}.parameters")
        match _source(tensor, parameters, where, field):
            case "binary_data_size":
                size = _binary_size(parameters[_BINARY_SIZE], len(binary) - at, where, field)
                raw.append(binary[at : at + size])
                at += size
            case "data":
                try:
                    raw.append(raw_of(datatype, shape, tensor["data"], most_texts))
                except ValueError as error:
                    raise InvalidRequest.of_field(f"{field}.data", f"{where} {error}") from None
    if at != len(binary):
        raise InvalidRequest(
            f"model {message.model_name}: {len(binary)} bytes stand behind the JSON, and {_BINARY_SIZE} of all inputs "
            f"is {at}."
        )
    return raw


def _source(tensor: Mapping[str, Any], parameters: Mapping[str, Any], where: str, field: str) -> str:
    """Return where the elements of an input are: ``data``, or the name of a parameter."""
    sources = [key for key in (_BINARY_SIZE, _SHARED_MEMORY) if key in parameters]
    sources += ["data"] if "data" in tensor else []
    if len(sources) != 1:
        raise InvalidRequest.of_field(
            field,
            f"{where} has {' and '.join(sources) or 'no elements'}, expected one of data, {_BINARY_SIZE} and "
            f"{_SHARED_MEMORY}",
        )
    return sources[0]


def _binary_size(size: Any, left: int, where: str, field: str) -> int:
    if type(size) is not int or not 0 <= size <= left:
        raise InvalidRequest.of_field(
            f"{field}.parameters.{_BINARY_SIZE}",
            f"{where} has {excerpt(size)}, expected 0 to {left}: the bytes left behind the JSON",
        )
    return size


def _outputs(message: pb.ModelInferRequest, given: list[Any], *, all_binary: bool) -> dict[str, bool]:
    binary = {}
    for index, entry in enumerate(given):
        field, where = f"outputs[{index}]", f"model {message.model_name}"
        output = _object(entry, where, field)
        _known(output, _OUTPUT_KEYS, where, field)
        name = _text(output, "name", where, field)
        where = f"{where}: output {name!r}"
        parameters = _object(output.get("parameters", {}), where, f"{field}.parameters")
        binary[name] = _flag(parameters, _BINARY, where, f"{field}.parameters", default=all_binary)
        added = message.outputs.add(name=name)
        _set_parameters(added.parameters, parameters, {_BINARY}, where, f"{field}.parameters")
    return binary


def _set_parameters(
    target: MutableMapping[str, pb.InferParameter], given: Mapping[str, Any], own: set[str], where: str, field: str
) -> None:
    for name, value in given.items():
        if name not in own:
            set_parameter(target, name, value, f"{field}: {where}")


def _shape(value: Any, where: str, field: str) -> list[int]:
    is_shape = isinstance(value, list) and all(type(size) is int and 0 <= size < _INT64 for size in value)
    if not is_shape or len(value) > 16:
        raise InvalidRequest.of_field(
            f"{field}.shape", f"{where} has {excerpt(value)}, expected a list of at most 16 sizes, 0 or more"
        )
    shape: list[int] = value
    return shape


def _known(given: Mapping[str, Any], keys: frozenset[str], where: str, field: str) -> None:
    for key in given:
        if key not in keys:
            path = f"{field}.{key[:60]}" if field else key[:60]
            raise InvalidRequest.of_field(path, f"{where}: is unknown; expected {', '.join(sorted(keys))}")


def _object(value: Any, where: str, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest.of_field(field, f"{where}: is {excerpt(value)}, expected an object")
    return value


def _list(value: Any, where: str, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest.of_field(field, f"{where}: is {excerpt(value)}, expected a list")
    return value


def _text(given: Mapping[str, Any], key: str, where: str, field: str = "") -> str:
    value = given.get(key, "")
    if not isinstance(value, str) or not _carried(value):
        raise InvalidRequest.of_field(
            f"{field}.{key}" if field else key, f"{where}: is {excerpt(value)}, expected a text"
        )
    return value


def _carried(text: str) -> bool:
    """Tell whether UTF-8 can carry a text; JSON can spell half a character."""
    return text.isascii() or text.encode(errors="replace").decode() == text


def _flag(given: Mapping[str, Any], key: str, where: str, field: str, *, default: bool) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequest.of_field(f"{field}.{key}", f"{where}: is {excerpt(value)}, expected true or false")
    return value
