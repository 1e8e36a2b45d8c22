"""A sequence_batching that cannot be honoured is refused when the model is loaded, with a sentence that says why."""

from __future__ import annotations

import pytest

from mediamesh.inference.configuration.config import LoadError, read_config
from mediamesh.inference.datatypes import TensorSpec
from mediamesh.inference.sequences.config import read_sequences

INPUTS = [
    TensorSpec("x", "FP32", (-1, 2)),
    TensorSpec("flag", "BOOL", (-1, 1)),
    TensorSpec("flat", "BOOL", (-1,)),
    TensorSpec("id", "UINT64", (-1, 1)),
    TensorSpec("state", "FP32", (-1, 2, -1)),
]
OUTPUTS = [TensorSpec("y", "FP32", (-1, 2)), TensorSpec("next", "FP32", (-1, 2, -1))]
ZERO = "zero_data: true"
START = "kind: CONTROL_SEQUENCE_START bool_false_true: [ false, true ]"
STATE = 'input_name: "state" output_name: "next" data_type: TYPE_FP32 dims: [ 2, -1 ]'


def read(tmp_path, batching: str, most: int = 8):
    directory = tmp_path / "m"
    directory.mkdir(exist_ok=True)
    path = directory / "config.pbtxt"
    path.write_text(f"max_batch_size: {most} sequence_batching {{ {batching} }}")
    config = read_config(path)
    return config, read_sequences(directory, "m/1", config, INPUTS, OUTPUTS)


REFUSED = {
    "iterative": ("iterative_sequence: true", "iterative_sequence: not supported"),
    "shared buffer": (
        f"state {{ {STATE} use_same_buffer_for_input_output: true }}",
        "use_same_buffer_for_input_output: not supported",
    ),
    "no candidates": ("oldest {}", "max_candidate_sequences: 0, expected 1 or more"),
    "preferred": (
        "oldest { max_candidate_sequences: 4 preferred_batch_size: 9 }",
        "preferred_batch_size: 9, expected 1 to max_batch_size, 8",
    ),
    "utilization": ("direct { minimum_slot_utilization: 1.5 }", "minimum_slot_utilization: 1.5, expected 0 to 1"),
    "idle": ("max_sequence_idle_microseconds: 10000000000000000", "max_sequence_idle_microseconds: more than"),
    "delay": (
        "oldest { max_candidate_sequences: 1 max_queue_delay_microseconds: 10000000000000000 }",
        "max_queue_delay_microseconds: 10000000000000000, at most",
    ),
    "no such control": (
        f'control_input {{ name: "z" control {{ {START} }} }}',
        "control_input 'z': the ONNX file has no such input; it has x, flag",
    ),
    "no control": ('control_input { name: "flag" }', "control_input 'flag': has 0 controls, expected one"),
    "no values": (
        'control_input { name: "flag" control { kind: CONTROL_SEQUENCE_END } }',
        "expected one of int32_false_true, fp32_false_true, bool_false_true, has none",
    ),
    "one value": (
        'control_input { name: "flag" control { kind: CONTROL_SEQUENCE_END bool_false_true: [ true ] } }',
        "bool_false_true: has 1 values, expected two",
    ),
    "control type": (
        'control_input { name: "flag" control { int32_false_true: [ 0, 1 ] } }',
        r"gives INT32 \[1, 1\], the ONNX file takes BOOL \[-1, 1\]",
    ),
    "control shape": (
        f'control_input {{ name: "flat" control {{ {START} }} }}',
        r"gives BOOL \[1, 1\], the ONNX file takes BOOL \[-1\]",
    ),
    "control twice": (
        f'control_input {{ name: "flag" control {{ {START} }} }}' * 2,
        "CONTROL_SEQUENCE_START is given to another input already",
    ),
    "id type": (
        'control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 } }',
        "data_type: TYPE_FP32, expected one of TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32, TYPE_STRING",
    ),
    "id values": (
        'control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID int32_false_true: [ 0, 1 ] } }',
        "CONTROL_SEQUENCE_CORRID has a data_type, no values",
    ),
    "no such state": (
        'state { input_name: "z" output_name: "next" data_type: TYPE_FP32 dims: [ 2 ] }',
        "state 'z': the ONNX file has no input 'z'",
    ),
    "state type": (
        f"state {{ {STATE.replace('FP32', 'INT64')} }}",
        "data_type: TYPE_INT64, input 'state' of the ONNX file is FP32",
    ),
    "state shape": (
        f"state {{ {STATE.replace('2, -1', '2')} }}",
        r"dims: \[2\], input 'state' of the ONNX file has \[-1, 2, -1\], the first being the batch",
    ),
    "state twice": (f"state {{ {STATE} }} state {{ {STATE} }}", "state: input_name state is there twice"),
    "two beginnings": (
        f"state {{ {STATE} initial_state {{ zero_data: true }} initial_state {{ zero_data: true }} }}",
        "initial_state: there are 2, expected one at most",
    ),
    "open size": (
        f'state {{ {STATE} initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 2, -1 ] zero_data: true }} }}',
        r"dims: \[2, -1\], the state has \[2, -1\]; every size must be known",
    ),
    "no value": (
        f'state {{ {STATE} initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 2, 1 ] }} }}',
        "expected zero_data: true, or a data_file",
    ),
    "no file": (
        f'state {{ {STATE} initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 2, 1 ] data_file: "f" }} }}',
        "initial_state 'i': data_file: .*No such file",
    ),
    "a file elsewhere": (
        f'state {{ {STATE} initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 2, 1 ] data_file: "../f" }} }}',
        "'../f' is not the name of a file beside others",
    ),
    "large": (
        f'state {{ {STATE} initial_state {{ name: "i" data_type: TYPE_FP32 dims: [ 2, 9999999999 ] {ZERO} }} }}',
        "make more than 1073741824 bytes",
    ),
}


@pytest.mark.parametrize(("batching", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_with_a_sentence(tmp_path, batching, sentence) -> None:
    with pytest.raises(LoadError, match=sentence) as raised:
        read(tmp_path, batching)
    assert "config.pbtxt: sequence_batching" in str(raised.value)


def test_what_is_left_open_is_what_triton_takes(tmp_path) -> None:
    config, sequences = read(tmp_path, "")
    assert sequences is not None
    assert config.sequence_batching.HasField("direct")
    assert config.sequence_batching.max_sequence_idle_microseconds == 1_000_000
    assert (sequences.slots, sequences.idle_seconds) == (8, 1)


def test_a_state_begins_with_zeros_and_the_smallest_size_where_nothing_is_said(tmp_path) -> None:
    _, sequences = read(tmp_path, f"state {{ {STATE} }}")
    assert sequences is not None
    (state,) = sequences.states
    assert state.initial.tolist() == [[[0], [0]]]


def test_strategies_say_how_many_sequences_run_and_which_batches_are_worth_a_wait(tmp_path) -> None:
    _, direct = read(tmp_path, "direct { minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 100 }")
    _, eager = read(tmp_path, "direct { max_queue_delay_microseconds: 100 }")
    _, oldest = read(
        tmp_path,
        "oldest { max_candidate_sequences: 100 preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 7 }",
    )
    _, alone = read(tmp_path, "oldest { max_candidate_sequences: 100 }", most=0)
    assert direct is not None
    assert eager is not None
    assert oldest is not None
    assert alone is not None
    assert (direct.slots, direct.batches.preferred, direct.batches.delay) == (8, {4, 5, 6, 7, 8}, 100_000)
    assert (eager.slots, eager.batches.preferred, eager.batches.delay) == (8, frozenset(), 0)
    assert (oldest.slots, oldest.batches.preferred, oldest.batches.delay) == (100, {2, 4}, 7_000)
    assert (alone.slots, alone.batches.most_items) == (100, 0)
