"""What can be set about the mesh on one machine, beside the settings of its servers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mediamesh.kit.settings import ServerSettings, Settings
from mediamesh.stack.envoy import LOCAL_ORIGINS
from mediamesh.wire.shipped import shipped

__all__ = ["UpSettings", "own_ports"]


class UpSettings(Settings):
    """The variables ``MEDIAMESH_UP_*`` and the table ``[up]``; ports left unset are free ones, kept from run to run."""

    section: ClassVar[str] = "up"

    data: Path = Field(default=Path(".mediamesh"), description="Folder of data, logs and secrets; made if missing.")
    host: str = Field(default="127.0.0.1", description="Address that the door listens on; all else is local.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port of the door.")
    public_url: str = Field(
        default="", description="Where clients find the door for WebSockets, wss://HOST; ws://host:port when empty."
    )
    admin_port: int | None = Field(default=None, ge=1, le=65535, description="Port of Envoy's own page.")
    inside_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port where servers of the mesh find the streams servers."
    )
    valkey_port: int | None = Field(default=None, ge=1, le=65535, description="Port of Valkey.")
    s3_port: int | None = Field(default=None, ge=1, le=55535, description="Port of the S3 store.")
    s3_master_port: int | None = Field(default=None, ge=1, le=55535, description="Port of SeaweedFS's master.")
    s3_volume_port: int | None = Field(default=None, ge=1, le=55535, description="Port of SeaweedFS's volumes.")
    s3_filer_port: int | None = Field(default=None, ge=1, le=55535, description="Port of SeaweedFS's filer.")
    s3_admin_port: int | None = Field(default=None, ge=1, le=55535, description="Port of SeaweedFS's admin.")
    s3_bucket: str = Field(default="media", min_length=3, max_length=63, description="Bucket of all media.")
    s3_memory_mib: int = Field(default=400, ge=64, description="Where SeaweedFS starts to save memory, in MiB.")
    valkey_fsync: Literal["always", "everysec", "no"] = Field(
        default="everysec", description="When an acknowledged write reaches the disk."
    )
    stream_replicas: int = Field(default=1, ge=1, le=16, description="Streams servers to run.")
    orchestrator_replicas: int = Field(default=1, ge=1, le=16, description="Orchestrators to run.")
    agent_replicas: int = Field(default=1, ge=1, le=16, description="Servers of the agents that ship to run.")
    model_repository: Path = Field(
        default=shipped("deploy/models/repository"), description="Folder of the models to serve."
    )
    models: list[str] = Field(
        default=[
            "nanodet_int8",
            "silero_vad",
            "whisper_tiny_en",
            "ppocr_detector",
            "ppocr_recogniser",
            "ppocr_orientation",
        ],
        description="Models, or sets, of the model store to serve besides, pulled where they are missing; [] for none.",
    )
    web: Path = Field(default=shipped("generated/web"), description="Folder of the web page.")
    envoy_template: Path = Field(
        default=shipped("deploy/envoy/envoy.yaml.tmpl"), description="Template of Envoy's configuration."
    )
    envoy_concurrency: int = Field(default=1, ge=1, le=256, description="Worker threads of Envoy.")
    cors_origins: str = Field(
        default=LOCAL_ORIGINS, description="Regular expression of the origins whose pages may call the mesh."
    )
    extra_agents: list[str] = Field(
        default=[], description="Addresses, host:port, of more agent servers that flows can use."
    )
    drain_seconds: float = Field(
        default=5.0, ge=0, le=600, description="How long streams through the door may go on after Ctrl-C."
    )
    max_failures: int = Field(
        default=5, ge=1, description="How often in a row a part may fail within a minute before everything stops."
    )


def own_ports(name: str) -> dict[str, int | None]:
    """Return port and metrics port that a server's own settings ask for."""

    class Listening(ServerSettings):
        section: ClassVar[str] = name

    settings = Listening.load()
    return {"port": settings.port or None, "metrics": settings.metrics_port or None}
