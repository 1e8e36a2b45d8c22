"""Settings: frozen, typed, read in one place from ``MEDIAMESH_*`` variables and a TOML file.

A server's class derives from :class:`ServerSettings` and names its section; ``section = "media"`` reads the variables
``MEDIAMESH_MEDIA_*`` and the table ``[media]`` of the file that ``MEDIAMESH_CONFIG`` names. Variables win.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mediamesh.client.channel import MAX_MESSAGE_BYTES

__all__ = ["CommonSettings", "FeatureSettings", "ServerSettings", "Settings", "SettingsError"]


class SettingsError(Exception):
    """A setting is missing or wrong; the text names its variable."""


class Settings(BaseSettings):
    """The base of all settings.

    ``section`` is set by subclasses; empty means the top level: ``MEDIAMESH_*`` and keys outside of any table.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)
    section: ClassVar[str] = ""

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read, check and return the settings.

        Raises:
            SettingsError: a value is missing or wrong; each line names a variable.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise SettingsError(
                "\n".join(
                    f"{cls.variable('_'.join(map(str, problem['loc'])))}: {problem['msg']} (got {problem['input']!r})"
                    for problem in error.errors()
                )
            ) from error

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable that sets a field."""
        known = cls.model_fields.get(field)
        if known is not None and isinstance(known.validation_alias, str):
            return known.validation_alias.upper()
        return f"{cls._prefix()}{field}".upper()

    @classmethod
    def _prefix(cls) -> str:
        return f"MEDIAMESH_{cls.section.upper()}_" if cls.section else "MEDIAMESH_"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class passes all four
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let arguments win over variables, and variables over the file."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := os.environ.get("MEDIAMESH_CONFIG"):
            sources.append(_Table(settings_cls, Path(path), cls.section))
        return tuple(sources)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.model_config["env_prefix"] = cls._prefix()


class _Table(InitSettingsSource):
    """One table of the TOML file."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path, section: str) -> None:
        if not path.is_file():
            raise SettingsError(f"MEDIAMESH_CONFIG: there is no file {path}")
        whole = TomlConfigSettingsSource(settings_cls, toml_file=path).toml_data
        super().__init__(settings_cls, whole.get(section, {}) if section else whole)


class CommonSettings(Settings):
    """What all servers of a process share."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    log_format: Literal["console", "json"] = Field(default="console", description="How a log line looks.")
    otlp_endpoint: str = Field(
        default="", description="Where traces and metrics are sent, http://host:4317; empty sends nothing."
    )
    trace_ratio: float = Field(default=1.0, ge=0, le=1, description="Share of traces that are recorded.")


class ServerSettings(Settings):
    """Where and how a server listens."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of the Prometheus page; unset offers none."
    )
    grace_seconds: float = Field(default=5.0, ge=0, le=600, description="How long calls may go on after SIGTERM.")
    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES, ge=1024, le=1 << 30, description="Largest message accepted."
    )
    max_concurrent_calls: int = Field(
        default=2000, ge=1, le=1_000_000, description="Calls served at once; the next is refused."
    )
    read_ahead_bytes: int | None = Field(
        default=None,
        ge=65_536,
        le=1 << 24,
        description="Bytes taken from each stream before they are read; unset lets gRPC choose, up to megabytes.",
    )
    event_loop: Literal["asyncio", "uvloop"] = Field(
        default="asyncio", description="Loop of the process; uvloop where it is installed."
    )
    reflection: bool = Field(default=True, description="Whether the server tells about the services of the mesh.")


class FeatureSettings(ServerSettings):
    """What may be asked of a mesh at all; its variables have the names that deployments know, without a prefix."""

    enable_multimodal: bool = Field(
        default=True,
        validation_alias="enable_multimodal",
        description="Whether media is taken; off, what carries it is refused with E4011.",
    )
    enable_streaming: bool = Field(
        default=True,
        validation_alias="enable_streaming",
        description="Whether answers may stream; off, what streams is refused with E4010.",
    )
