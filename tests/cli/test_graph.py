"""Flows as pictures."""

from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from mediamesh.api.agent.v1.pin_pb2 import PIN_TYPE_IMAGE, PIN_TYPE_STREAM, Pin
from mediamesh.api.flow.v1.flow_pb2 import Flow
from mediamesh.cli.graph import svg, terminal
from mediamesh.cli.layers import layers


def flow_of(*edges, nodes=()):
    flow = Flow(id="f", name="A & B", description="shows")
    ends = [end for edge in edges for end in edge.split(" ")]
    for node in dict.fromkeys([*nodes, *(end.partition(".")[0] for end in ends)]):
        flow.nodes.add(id=node, type=f"test.{node}")
    for edge in edges:
        added = flow.edges.add()
        for name, end in zip(("from", "to"), edge.split(" "), strict=True):
            address = getattr(added, name)
            address.node_id, _, address.pin = end.partition(".")
    return flow


DIAMOND = ("a.x b.x", "a.x c.x", "b.y d.b", "c.y d.c", "a.x d.a")


def test_a_node_comes_after_all_that_it_needs() -> None:
    assert layers(flow_of(*DIAMOND)) == [["a"], ["b", "c"], ["d"]]


def test_nodes_are_ordered_by_what_they_need() -> None:
    assert layers(flow_of("a.x d.x", "b.x c.x", nodes="abcd")) == [["a", "b"], ["d", "c"]]


def test_a_cycle_is_drawn_too() -> None:
    flow = flow_of("a.x b.x", "b.x a.x")
    assert sorted(node for layer in layers(flow) for node in layer) == ["a", "b"]
    assert ET.fromstring(svg(flow)) is not None


def test_a_picture_has_every_node_and_edge_within_its_frame() -> None:
    flow = flow_of(*DIAMOND)
    flow.nodes[0].output_pins.append(Pin(name="x", type=PIN_TYPE_STREAM))
    flow.nodes[1].output_pins.append(Pin(name="y", type=PIN_TYPE_IMAGE))
    root = ET.fromstring(svg(flow))
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.findtext("s:title", namespaces=space) == "A & B"
    assert len(root.findall("s:g/s:rect", space)) == 4
    paths = root.findall("s:g/s:path", space)
    assert [path.get("class") for path in paths] == ["stream", "stream", None, None, "stream"]
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.findall("s:g[@transform]", space):
        x, y = map(float, box.get("transform", "")[len("translate(") : -1].split())
        assert 0 <= x <= width - 212
        assert 0 <= y <= height - 60


@pytest.mark.parametrize("width", [40, 160])
def test_a_terminal_shows_what_goes_where(width) -> None:
    flow = flow_of("a.x b.x")
    flow.nodes[0].output_pins.append(Pin(name="x", type=PIN_TYPE_STREAM))
    out = io.StringIO()
    Console(file=out, width=width).print(terminal(flow))
    assert "a.x" in out.getvalue()
    assert "stream" in out.getvalue()


def test_a_flow_of_nothing_is_an_empty_picture() -> None:
    assert ET.fromstring(svg(Flow(id="f"))) is not None
