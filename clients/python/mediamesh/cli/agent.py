"""``mediamesh agent``: begin one, and hold one to the contract."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf import json_format, struct_pb2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaValue
from mediamesh.cli.door import complete, errors_as_sentences
from mediamesh.cli.results import clean
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.pins import MEDIA_TYPES, plain_value, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mediamesh.agent.check import Finding
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["agent"]

agent = typer.Typer(help="Begin agents, and hold them to the contract.", no_args_is_help=True)
_STYLES = {"passed": "green", "warned": "yellow", "skipped": "dim", "failed": "bold red"}
_WIDE = 160  # columns of a table that goes into a file
_NEEDED = ("grpc_health", "grpc_reflection", "yaml", "pydantic_settings")


@agent.command()
def check(
    target: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="The agent's server; it should have nothing else to do.")
    ],
    *,
    agent_id: Annotated[str, typer.Option("--agent", help="Check only this agent; all when empty.")] = "",
    given: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="PIN=VALUE", help="A value for an input, a path for media; else made up."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter, as JSON or a text.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Only this check; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long one run may take.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each check.")] = False,
) -> None:
    """Run the contract's conformance suite against an agent in any language; exits with 1 if a check fails."""
    _need_sdk()
    work = _check(target, agent_id, given or [], param or [], only=only or [], seconds=seconds, as_json=as_json)
    if complete(work):
        raise typer.Exit(1)


@agent.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as acme.word-counter, or only word-counter.")],
    *,
    language: Annotated[str, typer.Option(help="python or typescript.")] = "python",
    directory: Annotated[Path, typer.Option(help="Where its folder is to be.")] = Path(),
) -> None:
    """Begin an agent: a folder with code that works, its manifest, and a test that passes."""
    _need_sdk()
    from mediamesh.agent.scaffold import scaffold  # noqa: PLC0415 - a client can do without the SDK

    with errors_as_sentences():
        folder = scaffold(name, language, directory)
    steps = {"python": "python -m pytest", "typescript": "npm install && npm test"}
    typer.echo(f"{folder} is an agent that works. Its test: cd {folder} && {steps[language]}")


def _need_sdk() -> None:
    if any(importlib.util.find_spec(package) is None for package in _NEEDED):
        typer.echo("The agent SDK is not installed; pip install 'mediamesh[agent]' brings it.", err=True)
        raise typer.Exit(2)


async def _check(
    target: str, agent_id: str, given: list[str], params: list[str], *, only: list[str], seconds: float, as_json: bool
) -> int:
    from mediamesh.agent.check import check_server  # noqa: PLC0415 - a client can do without the SDK

    checking = check_server(
        target,
        agent_id=agent_id,
        inputs=_inputs(_pairs("--input", given)),
        params=_params(_pairs("--param", params)),
        seconds=seconds,
        only=only,
    )
    findings: list[Finding] = []
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=_WIDE)
    with console.status("Checking…", spinner="dots") as status:
        async for finding in checking:
            findings.append(finding)
            status.update(f"Checking… {finding.agent} {finding.check}")
            if as_json:
                typer.echo(json.dumps(_as_json(finding)))
    if not as_json:
        console.print(_table(findings))
        console.print(_summary(findings))
    return sum(finding.verdict.value == "failed" for finding in findings)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what was seen", overflow="fold")
    owner = None
    for finding in findings:
        if finding.agent != owner:
            owner = finding.agent
            if owner:
                table.add_row("", "", "")
                table.add_row(Text(clean(owner), style="bold"), "", "")
        verdict = finding.verdict.value
        text = Text(clean(finding.text))
        if verdict == "failed":
            text.append(f"\n{finding.promise}", style="dim")
        table.add_row(finding.check, Text(verdict, style=_STYLES[verdict]), text)
    return table


def _summary(findings: list[Finding]) -> Text:
    counts = Counter(finding.verdict.value for finding in findings)
    return Text("\n" + ", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES if counts[verdict]) + ".")


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "agent": finding.agent,
        "verdict": finding.verdict.value,
        "promise": finding.promise,
        "text": finding.text,
        "seconds": round(finding.seconds, 3),
    }


def _pairs(option: str, arguments: list[str]) -> dict[str, str]:
    pairs = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not (name and equals):
            raise InvalidRequest.of_field(option, f"{argument!r} is not of the form NAME=VALUE")
        pairs[name] = text
    return pairs


def _params(pairs: Mapping[str, str]) -> dict[str, object]:
    return {name: _json_or_text(text) for name, text in pairs.items()}


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _inputs(pairs: Mapping[str, str]) -> Callable[[Manifest], Mapping[str, Value]]:
    """Return what makes values of an agent's pins; pins that the agent has not are for another one of the server."""
    return lambda manifest: {pin.name: _value(pin, pairs[pin.name]) for pin in manifest.inputs if pin.name in pairs}


def _value(pin: Pin, text: str) -> Value:
    try:
        if pin.type in MEDIA_TYPES:
            return Value(media=MediaValue(type=MEDIA_TYPES[pin.type], inline=Path(text).expanduser().read_bytes()))
        if pin.type == PinType.PIN_TYPE_BINARY:
            return Value(binary=Path(text).expanduser().read_bytes())
        if pin.type in {PinType.PIN_TYPE_STRING, PinType.PIN_TYPE_STREAM}:
            return Value(text=text)
        return plain_value(pin, json_format.Parse(text, struct_pb2.Value()))
    except (OSError, json_format.ParseError) as error:
        raise InvalidRequest.of_field(f"--input {pin.name}", f"is no {type_name(pin.type)}: {error}") from None
