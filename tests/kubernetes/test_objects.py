"""The objects of Kubernetes, held against the schemas that Kubernetes publishes."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from mediamesh.agent.manifest import parse_manifest
from mediamesh.agent.profiles import built_in_profiles
from mediamesh.cli.main import app
from mediamesh.kubernetes import Cluster, job, objects
from mediamesh.wire.errors import InvalidRequest

# The oldest with gRPC probes and autoscaling/v2 out of beta, and the newest that the package knows.
VERSIONS = ("1.27", kubernetes_validate.latest_version())
TEXT = """
id: example.watcher
version: 1.2.0+build.7
image: example.org/watcher:1.2.0
inputs: [{name: video, type: video}]
outputs: [{name: seen, type: json}]
resources: {profiles: [{name: video_processing}, {name: small, cpu: 500m, memory: 1Gi}]}
"""


@pytest.fixture
def manifest():
    return parse_manifest(TEXT)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "manifest.yaml"
    path.write_text(TEXT)
    return str(path)


def rendered(*words):
    done = CliRunner().invoke(app, ["k8s", "render", *words])
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.output))


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_all_of_them(manifest, version) -> None:
    profile = built_in_profiles()["video_processing"]
    made = [*objects(manifest, profile, Cluster()), job(manifest, profile, Cluster(), run="01m7zt2ay")]
    assert [one["kind"] for one in made] == ["Deployment", "Service", "HorizontalPodAutoscaler", "Job"]
    for one in made:
        kubernetes_validate.validate(one, version, strict=True)


def test_they_find_each_other(manifest) -> None:
    deployment, service, autoscaler = objects(manifest, built_in_profiles()["image_processing"], Cluster(most=3))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels.items()
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "example-watcher"
    assert autoscaler["spec"]["maxReplicas"] == 3
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}


def test_the_command_sizes_them_by_what_is_known_of_the_media(file) -> None:
    deployment, *_ = rendered(file, "--profile", "small", "--media", "width=3840,height=2160,duration=60,fps=90")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "8192Mi", "ephemeral-storage": "24576Mi"},
        "limits": {"memory": "8192Mi", "ephemeral-storage": "24576Mi", "nvidia.com/gpu": "1"},
    }
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "24576Mi"}


def test_a_run_of_its_own_is_a_job_that_ends_after_it(file) -> None:
    (made,) = rendered(file, "--run", "run-7", "--namespace", "video", "--env", "A=b=c")
    assert (made["kind"], made["metadata"]["name"], made["metadata"]["namespace"]) == (
        "Job",
        "example-watcher-run-7",
        "video",
    )
    variables = {one["name"]: one["value"] for one in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["MEDIAMESH_AGENT_MAX_RUNS"] == "1"
    assert variables["A"] == "b=c"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "large"], "has no profile 'large'; it has video_processing, small"),
        (["--media", "width=wide"], "width=1920,height=1080"),
        (["--env", "A"], "NAME=VALUE"),
        (["--run", "Run 7"], "lower-case letters"),
        (["--least", "5", "--most", "2"], "between 1 and most (2)"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(file, words, said) -> None:
    done = CliRunner().invoke(app, ["k8s", "render", file, *words])
    assert done.exit_code == 1
    assert said in done.stderr


def test_an_agent_without_an_image_runs_on_no_cluster() -> None:
    manifest = parse_manifest(TEXT.replace("image: example.org/watcher:1.2.0\n", ""))
    with pytest.raises(InvalidRequest, match="names no container image"):
        objects(manifest, built_in_profiles()["image_processing"], Cluster())
