"""The commands of ``mediamesh``."""

from __future__ import annotations

import typer

from mediamesh.cli import bench
from mediamesh.cli.agent import agent
from mediamesh.cli.demo import demo
from mediamesh.cli.flow import agents, check
from mediamesh.cli.graph import graph
from mediamesh.cli.k8s import render
from mediamesh.cli.models import models
from mediamesh.cli.run import run
from mediamesh.cli.runs import runs
from mediamesh.cli.serve import serve
from mediamesh.cli.settings import settings
from mediamesh.cli.stream_list import list_streams
from mediamesh.cli.stream_publish import publish
from mediamesh.cli.stream_tail import tail
from mediamesh.cli.up import up

__all__ = ["app"]

app = typer.Typer(
    help="A gRPC service mesh for multimodal, streaming AI agents.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
flow = typer.Typer(help="Look at flows.", no_args_is_help=True)
app.command()(up)
app.command()(run)
app.command()(agents)
app.command()(serve)
app.command()(demo)
app.command()(settings)
flow.command()(check)
flow.command()(graph)
app.add_typer(flow, name="flow")
app.add_typer(runs, name="runs")
stream = typer.Typer(help="Publish to streams, read and list them.", no_args_is_help=True)
stream.command()(publish)
stream.command()(tail)
stream.command("list")(list_streams)
app.add_typer(stream, name="stream")
app.add_typer(models, name="models")
app.add_typer(agent, name="agent")
kubernetes = typer.Typer(help="Run agents on Kubernetes.", no_args_is_help=True)
kubernetes.command()(render)
app.add_typer(kubernetes, name="k8s")
measure = typer.Typer(help="Measure servers.", no_args_is_help=True)
measure.command()(bench.inference)
app.add_typer(measure, name="bench")

if __name__ == "__main__":
    app()
