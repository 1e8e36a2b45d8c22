"""The fields of config.pbtxt that this server acts on, by backend; a model that sets any other is refused.

Each set belongs to the module that acts on it: whoever teaches the server a field adds it to the set of that module.
A path names the field from the top of ModelConfig on; ``[*]`` stands for any key of a map.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from google.protobuf.message import Message

if TYPE_CHECKING:
    from mediamesh.api.inference.v2 import model_config_pb2 as pb

__all__ = ["DECODER", "ONNXRUNTIME", "PARAMETERS", "SUPPORTED", "unsupported"]

ONNXRUNTIME = "onnxruntime"
DECODER = "mediamesh_decoder"

_COMMON = frozenset({
    "name", "platform", "backend", "default_model_filename", "max_batch_size", "metric_tags[*]",
    "version_policy.latest", "version_policy.latest.num_versions", "version_policy.all",
    "version_policy.specific", "version_policy.specific.versions",
    "response_cache",  # set to false; true makes a field of its own
    "model_transaction_policy",
})  # fmt: skip
_TENSORS = frozenset({
    "input.name", "input.data_type", "input.format", "input.dims", "input.reshape", "input.reshape.shape",
    "input.optional",
    "output.name", "output.data_type", "output.dims", "output.reshape", "output.reshape.shape",
    "output.label_filename",
})  # fmt: skip
_INSTANCES = frozenset({
    "instance_group", "instance_group.name", "instance_group.count", "instance_group.kind", "instance_group.gpus",
})  # fmt: skip
_OPTIMIZATION = frozenset({
    "optimization", "optimization.graph", "optimization.graph.level", "optimization.priority",
    "optimization.cuda", "optimization.cuda.graphs",
    "optimization.input_pinned_memory", "optimization.input_pinned_memory.enable",
    "optimization.output_pinned_memory", "optimization.output_pinned_memory.enable",
    "optimization.execution_accelerators",
    "optimization.execution_accelerators.gpu_execution_accelerator",
    "optimization.execution_accelerators.gpu_execution_accelerator.name",
    "optimization.execution_accelerators.gpu_execution_accelerator.parameters[*]",
    "optimization.execution_accelerators.cpu_execution_accelerator",
    "optimization.execution_accelerators.cpu_execution_accelerator.name",
    "optimization.execution_accelerators.cpu_execution_accelerator.parameters[*]",
})  # fmt: skip
_WARMUP = frozenset({
    "model_warmup", "model_warmup.name", "model_warmup.batch_size", "model_warmup.count",
    "model_warmup.inputs[*].data_type", "model_warmup.inputs[*].dims", "model_warmup.inputs[*].zero_data",
    "model_warmup.inputs[*].random_data", "model_warmup.inputs[*].input_data_file",
})  # fmt: skip
# The parameters that Triton's onnxruntime backend knows.
PARAMETERS = frozenset({
    "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena", "enable_mem_pattern",
    "memory.enable_memory_arena_shrinkage", "session.use_device_allocator_for_initializers",
    "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
})  # fmt: skip
_DYNAMIC_BATCHING = frozenset({
    "dynamic_batching", "dynamic_batching.preferred_batch_size", "dynamic_batching.max_queue_delay_microseconds",
    "dynamic_batching.preserve_ordering", "dynamic_batching.priority_levels",
    "dynamic_batching.default_priority_level", "dynamic_batching.default_queue_policy",
    "dynamic_batching.priority_queue_policy[*]",
}).union(
    f"dynamic_batching.{policy}.{field}"
    for policy in ("default_queue_policy", "priority_queue_policy[*]")
    for field in ("timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size")
)  # fmt: skip
_SEQUENCE_BATCHING = frozenset({"sequence_batching"}) | {f"sequence_batching.{name}" for name in (
    "max_sequence_idle_microseconds",
    "direct", "direct.max_queue_delay_microseconds", "direct.minimum_slot_utilization",
    "oldest", "oldest.max_candidate_sequences", "oldest.preferred_batch_size", "oldest.max_queue_delay_microseconds",
    "oldest.preserve_ordering",
    "control_input", "control_input.name", "control_input.control", "control_input.control.kind",
    "control_input.control.int32_false_true", "control_input.control.fp32_false_true",
    "control_input.control.bool_false_true", "control_input.control.data_type",
    "state", "state.input_name", "state.output_name", "state.data_type", "state.dims", "state.initial_state",
    "state.initial_state.name", "state.initial_state.data_type", "state.initial_state.dims",
    "state.initial_state.zero_data", "state.initial_state.data_file",
)}  # fmt: skip
_DECODER = frozenset({
    "input.name", "input.data_type", "input.dims", "input.optional",
    "output.name", "output.data_type", "output.dims",
    "model_transaction_policy.decoupled", "parameters[*].string_value",
})  # fmt: skip

# By the field ``backend``.
SUPPORTED: Mapping[str, frozenset[str]] = MappingProxyType({
    ONNXRUNTIME: _COMMON | _TENSORS | _INSTANCES | _OPTIMIZATION | _WARMUP | _DYNAMIC_BATCHING | _SEQUENCE_BATCHING
    | {f"parameters[{name}].string_value" for name in PARAMETERS},
    DECODER: _COMMON | _DECODER,
})  # fmt: skip
_KEY = re.compile(r"\[.*\]")


def unsupported(config: pb.ModelConfig, backend: str) -> list[str]:
    """Return the paths of the fields that a configuration sets and its backend does not act on."""
    known = SUPPORTED[backend]
    return [path for path in _leaves(config) if path not in known and _KEY.sub("[*]", path) not in known]


def _leaves(message: Message, prefix: str = "") -> Iterator[str]:
    """Yield the path of every leaf that is set; an empty message counts as one."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.message_type is None:
            yield path
        elif field.message_type.GetOptions().map_entry:
            for key in value:
                yield from _below(value[key], f"{path}[{key}]")
        else:
            for item in value if field.is_repeated else [value]:
                yield from _below(item, path)


def _below(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Message) and value.ListFields():
        yield from _leaves(value, f"{path}.")
    else:
        yield path
