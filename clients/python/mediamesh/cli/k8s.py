"""``mediamesh k8s``: the objects of Kubernetes for agents."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.cli.door import errors_as_sentences
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest, ResourceProfile

__all__ = ["render"]

_FACTS = {"width": int, "height": int, "fps": float, "duration": float}
_FIELDS = {"duration": "duration_seconds"}


def render(
    manifests: Annotated[list[Path], typer.Argument(help="manifest.yaml of one agent or of several.")],
    *,
    profile: Annotated[str, typer.Option(help="Which of the manifest's resource profiles; the first when empty.")] = "",
    media: Annotated[
        list[str] | None,
        typer.Option(
            metavar="width=W,height=H,duration=S,fps=F",
            help="What is known about an input, to size the resources by; may be repeated.",
        ),
    ] = None,
    run: Annotated[str, typer.Option(help="Render a Job for one run, with this in its name.")] = "",
    namespace: Annotated[str, typer.Option(help="Namespace of all objects.")] = "default",
    media_address: Annotated[str, typer.Option(help="host:port of the media service in the cluster.")] = "media:50051",
    least: Annotated[int, typer.Option(min=1, help="Fewest replicas.")] = 1,
    most: Annotated[int, typer.Option(min=1, help="Most replicas.")] = 10,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable; may be repeated.")] = None,
) -> None:
    """Print Deployment, Service and autoscaler of agents as YAML, or a Job; for `kubectl apply -f -`."""
    if importlib.util.find_spec("yaml") is None:
        typer.echo("Manifests need PyYAML; pip install 'mediamesh[agent]' brings it.", err=True)
        raise typer.Exit(2)
    # Only here: a client can do without all that reads manifests.
    import yaml  # noqa: PLC0415

    from mediamesh.agent.manifest import load_manifest  # noqa: PLC0415
    from mediamesh.kubernetes import Cluster, calculated, job, objects  # noqa: PLC0415

    with errors_as_sentences():
        cluster = Cluster(
            namespace=namespace,
            media_address=media_address,
            least=least,
            most=most,
            environment=dict(map(_variable, env or [])),
        )
        inputs = list(map(_facts, media or []))
        made: list[dict[str, Any]] = []
        for path in manifests:
            manifest = load_manifest(path)
            resources = calculated(_profile(manifest, profile), inputs)
            if run:
                made.append(job(manifest, resources, cluster, run=run))
            else:
                made += objects(manifest, resources, cluster)
        typer.echo(yaml.safe_dump_all(made, sort_keys=False), nl=False)


def _profile(manifest: Manifest, name: str) -> ResourceProfile:
    profiles: Sequence[ResourceProfile] = manifest.resources.profiles
    for found in profiles:
        if name in {"", found.name}:
            return found
    known = ", ".join(found.name for found in profiles) or "none"
    raise InvalidRequest.of_field("resources.profiles", f"{manifest.id} has no profile {name!r}; it has {known}")


def _facts(text: str) -> MediaFacts:
    facts = MediaFacts()
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            setattr(facts, _FIELDS.get(name, name), _FACTS[name](value))
        except (KeyError, ValueError):
            raise InvalidRequest.of_field(
                "--media", f"must be such as width=1920,height=1080,duration=60,fps=30; is {text!r}"
            ) from None
    return facts


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequest.of_field("--env", f"must be NAME=VALUE; is {text!r}")
    return name, value
