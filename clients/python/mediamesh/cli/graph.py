"""``mediamesh flow graph``: a flow as a picture, in the terminal or as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree as ET

import typer
from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mediamesh.api.agent.v1 import pin_pb2
from mediamesh.cli.door import Server, complete, target
from mediamesh.cli.layers import ends, layers
from mediamesh.cli.run import checked, source
from mediamesh.client import Mesh
from mediamesh.wire.json import short_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.flow.v1.flow_pb2 import Flow, FlowEdge

__all__ = ["graph", "svg", "terminal"]

_WIDTH, _HEIGHT, _ALONG, _ACROSS, _MARGIN = 212, 60, 84, 24, 12
_STYLE = """
 rect { fill: #fff; stroke: #c9cede; stroke-width: 1.5 }
 text { font: 12px system-ui, sans-serif; fill: #5d6478 }
 .id { font-size: 15px; font-weight: 600; fill: #171a24 }
 path { fill: none; stroke: #9aa2b8; stroke-width: 1.75 }
 .stream { stroke: #4f46e5; stroke-dasharray: 7 4 }
 @media (prefers-color-scheme: dark) {
  rect { fill: #171a23; stroke: #3a4052 } text { fill: #9aa2b8 } .id { fill: #eceef5 } .stream { stroke: #918bff }
 }
"""


def graph(
    file: Annotated[Path, typer.Argument(help="The .mlab file.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write SVG to this file.")] = None,
    server: Server = "",
    port: Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")] = 8080,
) -> None:
    """Draw a flow, with the conversions that the mesh puts in; dashed edges stream."""
    flow = complete(_checked(file, target(server, port)))
    if output is None:
        Console().print(terminal(flow))
        return
    try:
        output.write_text(svg(flow), "utf-8")
    except OSError as error:
        typer.echo(f"{output} cannot be written: {error}", err=True)
        raise typer.Exit(1) from None
    told = f"{output}: {len(flow.nodes)} nodes and {len(flow.edges)} edges."
    Console().print(told, soft_wrap=True, highlight=False, markup=False)


async def _checked(file: Path, door: str) -> Flow:
    async with Mesh(door) as mesh:
        return await checked(mesh, source(file))


def terminal(flow: Flow) -> RenderableType:
    """Return a flow drawn for a terminal: a column for each layer, and what goes along each edge."""
    nodes = {node.id: node for node in flow.nodes}
    columns = Table.grid(padding=(0, 1))
    drawn: list[RenderableType] = []
    for number, layer in enumerate(layers(flow)):
        if number:
            columns.add_column(vertical="middle")
            drawn.append(Text("→", style="dim"))
        columns.add_column(vertical="middle")
        boxes = [
            Panel(Text(nodes[one].type, style="dim"), title=Text(one, style="bold"), expand=False) for one in layer
        ]
        drawn.append(Align.center(Group(*boxes)))
    columns.add_row(*drawn)
    edges = Table.grid(padding=(0, 2))
    for edge in flow.edges:
        start, end = ends(edge)
        kind, streams = _kind(flow, edge)
        arrow = Text(f"{'╌' if streams else '─'} {kind} {'╌' if streams else '─'}▶", style="cyan" if streams else "dim")
        edges.add_row(f"{start.node_id}.{start.pin}", arrow, f"{end.node_id}.{end.pin}")
    title = Text.assemble((flow.name or flow.id, "bold"), "  ", (flow.description, "dim"))
    return Group(title, columns, edges)


def svg(flow: Flow) -> str:
    """Return a flow drawn as SVG, from left to right; its colours follow the reader's scheme."""
    placed = layers(flow)
    most = max((len(layer) for layer in placed), default=0)
    long, wide = _WIDTH + _ALONG, _HEIGHT + _ACROSS
    at = {
        node: (_MARGIN + depth * long, _MARGIN + (index + (most - len(layer)) / 2) * wide)
        for depth, layer in enumerate(placed)
        for index, node in enumerate(layer)
    }
    width, height = 2 * _MARGIN + len(placed) * long - _ALONG, 2 * _MARGIN + most * wide - _ACROSS
    root = ET.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=str(width),
        height=str(height),
        role="img",
    )
    ET.SubElement(root, "title").text = flow.name or flow.id
    ET.SubElement(root, "style").text = _STYLE
    for edge in flow.edges:
        _draw_edge(root, flow, edge, at)
    for node in flow.nodes:
        x, y = at[node.id]
        group = ET.SubElement(root, "g", transform=f"translate({x:g} {y:g})")
        ET.SubElement(group, "rect", width=str(_WIDTH), height=str(_HEIGHT), rx="12")
        ET.SubElement(group, "text", {"class": "id", "x": "16", "y": "27"}).text = node.id
        ET.SubElement(group, "text", x="16", y="46").text = node.type
    return ET.tostring(root, encoding="unicode") + "\n"


def _draw_edge(root: ET.Element, flow: Flow, edge: FlowEdge, at: Mapping[str, tuple[float, float]]) -> None:
    start, end = ends(edge)
    if start.node_id not in at or end.node_id not in at:
        return
    (x0, y0), (x1, y1) = at[start.node_id], at[end.node_id]
    x0, y0, y1 = x0 + _WIDTH, y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
    bend = (x1 - x0) / 2
    kind, streams = _kind(flow, edge)
    group = ET.SubElement(root, "g")
    ET.SubElement(group, "title").text = f"{start.node_id}.{start.pin} → {end.node_id}.{end.pin}"
    path = f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
    ET.SubElement(group, "path", {"d": path, **({"class": "stream"} if streams else {})})
    middle = {"x": f"{(x0 + x1) / 2:g}", "y": f"{(y0 + y1) / 2 - 8:g}", "text-anchor": "middle"}
    ET.SubElement(group, "text", middle).text = kind


def _kind(flow: Flow, edge: FlowEdge) -> tuple[str, bool]:
    """Return the type of what goes along an edge, and whether it streams."""
    start, _ = ends(edge)
    for node in flow.nodes:
        for pin in node.output_pins:
            if (node.id, pin.name) == (start.node_id, start.pin):
                name = short_name(pin_pb2.PinType.DESCRIPTOR, pin_pb2.PinType.Name(pin.type))
                return name, pin.type == pin_pb2.PIN_TYPE_STREAM
    return "", False
