"""Nodes that run over a list: what they take and give, in the place of what their agents do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.api.flow.v1 import flow_pb2
from mediamesh.orchestrator.builtin import SINKS, SOURCES
from mediamesh.orchestrator.draft import among, quoted
from mediamesh.orchestrator.wiring import is_constant

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.flow.v1.flow_pb2 import FlowNode
    from mediamesh.orchestrator.draft import Draft

__all__ = ["list_pins"]


def list_pins(draft: Draft, node: FlowNode) -> None:
    """Make the pins of a node, which are those of its agent, the ones that it has when it runs over a list.

    The pin of the elements takes the list, and every output is one. There are no streams: what the elements stream is
    dropped, and no stream could be read more than once.
    """
    code, said = flow_pb2.FLOW_ISSUE_CODE_INCOMPATIBLE_PINS, ""
    name = node.for_each.pin
    inputs = {pin.name: pin for pin in node.input_pins}
    if is_constant(node) or node.type in SOURCES | SINKS:
        said = f"`forEach` is for nodes that run an agent; {quoted(node.id)} runs none."
    elif name not in inputs:
        code = flow_pb2.FLOW_ISSUE_CODE_UNKNOWN_PIN
        said = f"{quoted(node.type)} has no input pin {quoted(name)} to run over.{among(name, inputs)}"
    elif inputs[name].type == pin_pb2.PIN_TYPE_STREAM:
        said = f"{quoted(name)} of {quoted(node.type)} is a stream; `forEach` runs over a list on a pin for one value."
    if said:
        draft.wrong(code, said, node.id, "forEach", "pin")
        return
    given = [pin for pin in node.input_pins if pin.type != pin_pb2.PIN_TYPE_STREAM]
    taken = [pin for pin in node.output_pins if pin.type != pin_pb2.PIN_TYPE_STREAM]
    del node.input_pins[:]
    del node.output_pins[:]
    node.input_pins.extend(_list_of(pin, optional=False) if pin.name == name else pin for pin in given)
    node.output_pins.extend(_list_of(pin, optional=pin.optional) for pin in taken)


def _list_of(pin: Pin, *, optional: bool) -> Pin:
    return pin_pb2.Pin(
        name=pin.name, type=pin_pb2.PIN_TYPE_JSON, optional=optional, description=f"A list. {pin.description}"[:1024]
    )
