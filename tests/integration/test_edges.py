from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.integration.conftest import CAT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]
SERVICES = {
    "grpc.health.v1.Health",
    "inference.GRPCInferenceService",
    "mediamesh.api.agent.v1.AgentService",
    "mediamesh.api.flow.v1.FlowService",
    "mediamesh.api.media.v1.MediaService",
}


def buf_curl(mesh, method: str, *options: str, data: str = "") -> str:
    given = ["--data", data] if data else []
    done = subprocess.run(
        ["buf", "curl", "--http2-prior-knowledge", *options, *given, f"http://{mesh.door}{method}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rest(mesh, path: str, body: object = None, headers: dict[str, str] | None = None):
    request = urllib.request.Request(
        f"http://{mesh.door}{path}",
        None if body is None else json.dumps(body).encode(),
        {"content-type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def events(mesh, execution_id: str, headers: dict[str, str] | None = None) -> tuple[str, list[dict[str, str]]]:
    request = urllib.request.Request(f"http://{mesh.door}/v1/executions/{execution_id}/events", headers=headers or {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        blocks = answer.read().decode().split("\n\n")
        kind = str(answer.headers["content-type"])
    fields = [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in blocks]
    return kind, [event for event in fields if "data" in event]


@pytest.fixture
def started(mesh, classify) -> str:
    photo = base64.b64encode(CAT.read_bytes()).decode()
    body = {
        "source": {"name": classify.name, "yaml": classify.yaml},
        "inputs": {"upload.file": {"media": {"type": "MEDIA_TYPE_IMAGE", "inline": photo}}},
    }
    status, answer = rest(mesh, "/v1/executions", body)
    assert status == 200, answer
    return str(answer["execution"]["executionId"])


def test_reflection_through_the_door_lists_every_service(mesh) -> None:
    assert set(buf_curl(mesh, "", "--list-services").split()) >= SERVICES


def test_a_unary_call_needs_no_proto_files(mesh) -> None:
    answer = json.loads(buf_curl(mesh, "/mediamesh.api.flow.v1.FlowService/ListAgents"))
    assert "mediamesh.image-classifier" in {agent["id"] for agent in answer["agents"]}


def test_a_server_stream_needs_no_proto_files(mesh, started) -> None:
    lines = buf_curl(
        mesh, "/mediamesh.api.flow.v1.FlowService/WatchExecution", data=json.dumps({"executionId": started})
    )
    assert "executionFinished" in lines


def test_a_bidi_stream_needs_no_proto_files(mesh) -> None:
    # Two questions on one stream to the inference server: an error in one leaves the other alone.
    asked = "".join(json.dumps({"modelName": name, "id": name}) for name in ("nobody", "nowhere"))
    answers = buf_curl(mesh, "/inference.GRPCInferenceService/ModelStreamInfer", data=asked)
    assert answers.count("errorMessage") == 2
    assert "nobody" in answers
    assert "nowhere" in answers


def test_an_agent_runs_over_its_bidi_stream(mesh) -> None:
    frame = json.dumps({"open": {"agentId": "test.image-generator"}})
    answers = buf_curl(mesh, "/mediamesh.api.agent.v1.AgentService/Run", data=frame)
    assert "finished" in answers
    assert "MEDIA_TYPE_IMAGE" in answers


def test_rest_reaches_the_unary_calls(mesh, started) -> None:
    status, answer = rest(mesh, f"/v1/executions/{started}")
    assert status == 200
    assert answer["execution"]["executionId"] == started
    status, page = rest(mesh, "/v1/executions?page_size=1")
    assert (status, len(page["executions"])) == (200, 1)
    assert page["nextPageToken"]


def test_rest_errors_carry_the_details(mesh) -> None:
    status, answer = rest(mesh, "/v1/executions/nobody")
    assert status == 404
    assert answer["code"] == 5
    assert answer["details"][0]["reason"] == "NOT_FOUND"


def test_events_are_server_sent_events_and_resume(mesh, started) -> None:
    kind, seen = events(mesh, started)
    assert kind.startswith("text/event-stream")
    numbered = [event for event in seen if "id" in event]
    assert [int(event["id"]) for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[0]["event"] == "execution_started"
    assert numbered[-1]["event"] == "execution_finished"
    assert json.loads(numbered[-1]["data"])["executionFinished"]["state"] == "succeeded"
    _, rest_of_it = events(mesh, started, {"Last-Event-ID": "3"})
    assert [event for event in rest_of_it if "id" in event] == numbered[3:]


def test_the_page_is_served_with_its_types(mesh) -> None:
    for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")):
        with urllib.request.urlopen(f"http://{mesh.door}{path}", timeout=10) as answer:
            assert answer.headers["content-type"].startswith(kind), path
            assert answer.read()


def test_metrics_count_what_was_served(mesh, started) -> None:
    events(mesh, started)
    ports = json.loads((mesh.data / "ports.json").read_text())
    pages = {}
    for name in ("media", "inference", "agents", "orchestrator"):
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[name]['metrics']}/metrics", timeout=10) as answer:
            pages[name] = answer.read().decode()
    assert "mediamesh_rpc_server_duration_seconds_count" in pages["orchestrator"]
    assert "mediamesh_multimodal_upload_size_bytes" in pages["media"]
    assert 'rpc_method="inference.GRPCInferenceService/ModelStreamInfer"' in pages["inference"]
