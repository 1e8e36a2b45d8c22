"""Log and trace settings of the protocol act on the process, or are refused with a sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.api.inference.v2.inference_service_pb2_grpc import GRPCInferenceServiceStub
from mediamesh.inference.protocol.log_settings import LogSettings
from mediamesh.inference.protocol.trace_settings import TraceSettings
from mediamesh.kit.telemetry import AdjustableSampler
from mediamesh.wire.errors import FailedPrecondition, InvalidRequest, NotImplementedByServer

LOG = logging.getLogger("tests.inference.settings")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.levels: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelname)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the root logger writes, at the level that it has in a server."""
    root, lines = logging.getLogger(), Lines()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = [lines]
    root.setLevel(logging.INFO)
    yield lines
    root.handlers[:] = handlers
    root.setLevel(level)


def written(lines: Lines) -> list[str]:
    lines.levels.clear()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        LOG.log(level, "a line")
    return list(lines.levels)


def test_log_switches_decide_which_severities_are_written(lines) -> None:
    settings = LogSettings()
    assert written(lines) == ["INFO", "WARNING", "ERROR"]
    assert settings.values() == {
        "log_file": "", "log_format": "default", "log_error": True, "log_warning": True, "log_info": True,
        "log_verbose_level": 0,
    }  # fmt: skip
    settings.change({"log_verbose_level": 3})
    assert written(lines) == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert settings.values()["log_verbose_level"] == 1
    changed = settings.change({"log_verbose_level": 0, "log_warning": False})
    assert written(lines) == ["INFO", "ERROR"]
    assert changed["log_warning"] is False
    settings.change({"log_info": False, "log_error": False})
    assert written(lines) == []
    settings.change({"log_warning": True, "log_error": True})
    assert written(lines) == ["WARNING", "ERROR"]


def test_what_was_changed_is_as_it_was_when_the_server_has_ended(lines) -> None:
    with LogSettings() as settings:
        settings.change({"log_warning": False, "log_info": False})
        assert written(lines) == ["ERROR"]
    assert written(lines) == ["INFO", "WARNING", "ERROR"]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"log_colour": True}, InvalidRequest, "is no log setting; there are log_error, log_file"),
        ({"log_info": 1}, InvalidRequest, "log_info.*is 1, expected true or false"),
        ({"log_verbose_level": True}, InvalidRequest, "expected a number"),
        ({"log_file": "/tmp/x"}, NotImplementedByServer, "log_file cannot be changed while the server runs"),
        ({"log_format": "ISO8601"}, NotImplementedByServer, "log_format cannot be changed"),
    ],
)
def test_a_log_setting_that_cannot_be_is_refused_and_changes_nothing(lines, change, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        LogSettings().change({"log_error": False, **change})
    assert written(lines) == ["INFO", "WARNING", "ERROR"]


async def test_log_settings_travel(tiny, lines) -> None:
    stub = GRPCInferenceServiceStub(tiny)
    request = pb.LogSettingsRequest()
    request.settings["log_info"].bool_param = False
    request.settings["log_file"].string_param = ""
    response = await stub.LogSettings(request)
    assert response.settings["log_info"].bool_param is False
    assert response.settings["log_warning"].bool_param is True
    assert response.settings["log_verbose_level"].WhichOneof("parameter_choice") == "uint32_param"
    assert written(lines) == ["WARNING", "ERROR"]
    with pytest.raises(InvalidRequest, match="has no value"):
        await stub.LogSettings(pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue()}))


@pytest.fixture
def tracing(monkeypatch) -> AdjustableSampler:
    """A process that sends a quarter of its traces somewhere."""
    sampler = AdjustableSampler(0.25)
    provider = TracerProvider(sampler=sampler)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return sampler


def test_trace_settings_say_and_change_the_share_of_traces(tracing) -> None:
    settings = TraceSettings()
    assert settings.values() == {
        "trace_level": ["TIMESTAMPS"], "trace_rate": ["4"], "trace_count": ("-1",), "log_frequency": ("0",),
        "trace_file": ("",), "trace_mode": ("opentelemetry",),
    }  # fmt: skip
    assert settings.change({"trace_rate": ["10"]})["trace_rate"] == ["10"]
    assert tracing.ratio == pytest.approx(0.1)
    assert settings.change({"trace_level": ["OFF"]})["trace_level"] == ["OFF"]
    assert tracing.ratio == 0
    settings.change({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"], "trace_count": ["-1"]})
    assert tracing.ratio == 1
    settings.change({"trace_rate": [], "trace_level": []})
    assert tracing.ratio == 0.25


def test_a_sampler_decides_anew_once_it_is_adjusted() -> None:
    sampler = AdjustableSampler(0)
    tracer = TracerProvider(sampler=sampler).get_tracer("test")
    assert not tracer.start_span("one").is_recording()
    sampler.ratio = 1
    assert tracer.start_span("two").is_recording()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"trace_colour": ["red"]}, InvalidRequest, "is no trace setting; there are trace_level"),
        ({"trace_level": ["TENSORS"]}, InvalidRequest, "expected TIMESTAMPS or OFF; tensors are not traced"),
        ({"trace_rate": ["many"]}, InvalidRequest, "expected one number"),
        ({"trace_rate": ["9" * 30]}, InvalidRequest, "expected one number"),
        ({"trace_file": ["/tmp/x"]}, NotImplementedByServer, "trace_file cannot be changed"),
    ],
)
def test_a_trace_setting_that_cannot_be_is_refused(tracing, change, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        TraceSettings().change({"trace_rate": ["7"], **change})
    assert tracing.ratio == 0.25


async def test_trace_settings_are_refused_where_spans_have_nowhere_to_go_and_for_one_model(tiny) -> None:
    stub = GRPCInferenceServiceStub(tiny)
    assert list((await stub.TraceSetting(pb.TraceSettingRequest())).settings["trace_level"].value) == ["OFF"]
    value = pb.TraceSettingRequest.SettingValue(value=["TIMESTAMPS"])
    with pytest.raises(FailedPrecondition, match="MEDIAMESH_OTLP_ENDPOINT"):
        await stub.TraceSetting(pb.TraceSettingRequest(settings={"trace_level": value}))
    with pytest.raises(NotImplementedByServer, match="whole server"):
        await stub.TraceSetting(pb.TraceSettingRequest(settings={"trace_level": value}, model_name="double"))
