"""The objects of Kubernetes that run an agent: Deployment, Service and autoscaler, or a Job for one run alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest, ResourceProfile

__all__ = ["Cluster", "job", "objects"]

_PORT, _METRICS = 50051, 9464
_GRACE_SECONDS = 30
_JOB_SECONDS, _JOB_KEPT_SECONDS = 3600, 600
_TARGET_PERCENT = 70
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where an agent is to run.

    Attributes:
        namespace: Namespace of all objects.
        media_address: host:port of the media service there.
        least: Fewest replicas.
        most: Most replicas.
        environment: Variables on top of those that every agent gets.
    """

    namespace: str = "default"
    media_address: str = "media:50051"
    least: int = 1
    most: int = 10
    environment: Mapping[str, str] = field(default_factory=dict)


def objects(manifest: Manifest, resources: ResourceProfile, cluster: Cluster) -> list[dict[str, Any]]:
    """Return Deployment, Service and HorizontalPodAutoscaler of an agent.

    The Service has no address of its own (headless): its callers see every replica and spread calls over them, which a
    virtual address would not do for gRPC, where one connection carries everything.

    Raises:
        InvalidRequest: the manifest names no image, or its id makes no name.
    """
    name = _name(manifest)
    labels = _labels(manifest)
    selector = {"app.kubernetes.io/name": name}
    if not 1 <= cluster.least <= cluster.most:
        raise InvalidRequest.of_field("least", f"must be between 1 and most ({cluster.most}); is {cluster.least}")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector},
            # What runs goes on while the new version comes up.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(manifest, resources, cluster),
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": labels},
        "spec": {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"name": "grpc", "port": _PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}],
        },
    }
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": labels},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": cluster.least,
            "maxReplicas": cluster.most,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": _TARGET_PERCENT},
                    },
                }
            ],
        },
    }
    return [deployment, service, autoscaler]


def job(manifest: Manifest, resources: ResourceProfile, cluster: Cluster, *, run: str) -> dict[str, Any]:
    """Return a Job that serves an agent for one run, and ends after it.

    Args:
        manifest: The agent.
        resources: What this run needs.
        cluster: Where it is to run.
        run: What tells it from other runs: lower-case letters, digits and hyphens, such as an execution's id.

    Raises:
        InvalidRequest: the manifest names no image, or the name of the Job is none.
    """
    name = f"{_name(manifest)[: 62 - len(run)]}-{run}"
    if not _NAME.fullmatch(name):
        raise InvalidRequest.of_field("run", f"must be lower-case letters, digits and hyphens; is {run!r}")
    pod = _pod(manifest, resources, cluster)
    pod["containers"][0]["env"].append({"name": "MEDIAMESH_AGENT_MAX_RUNS", "value": "1"})
    seconds = -(-manifest.response.max_duration_ms // 1000) or _JOB_SECONDS
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": _labels(manifest)},
        "spec": {
            # Whether a run is tried again its orchestrator decides.
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds + _GRACE_SECONDS,
            "ttlSecondsAfterFinished": _JOB_KEPT_SECONDS,
            "template": {"metadata": {"labels": _labels(manifest)}, "spec": {**pod, "restartPolicy": "Never"}},
        },
    }


def _pod(manifest: Manifest, resources: ResourceProfile, cluster: Cluster) -> dict[str, Any]:
    environment = {
        "MEDIAMESH_AGENT_HOST": "0.0.0.0",  # noqa: S104 - a pod has an address of its own
        "MEDIAMESH_AGENT_PORT": str(_PORT),
        "MEDIAMESH_AGENT_METRICS_PORT": str(_METRICS),
        "MEDIAMESH_AGENT_MEDIA_ADDRESS": cluster.media_address,
        "MEDIAMESH_AGENT_GRACE_SECONDS": str(_GRACE_SECONDS),
        **cluster.environment,
    }
    container = {
        "name": "agent",
        "image": manifest.image,
        "ports": [{"name": "grpc", "containerPort": _PORT}, {"name": "metrics", "containerPort": _METRICS}],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": _resources(resources),
        "startupProbe": {"grpc": {"port": _PORT}, "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {"grpc": {"port": _PORT}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 10, "failureThreshold": 6},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - of the container
    }
    scratch = {"sizeLimit": resources.ephemeral_storage} if resources.ephemeral_storage else {}
    return {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS + 10,
        "volumes": [{"name": "scratch", "emptyDir": scratch}],
    }


def _resources(resources: ResourceProfile) -> dict[str, dict[str, str]]:
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.ephemeral_storage:
        amounts["ephemeral-storage"] = resources.ephemeral_storage
    # Memory and disk have no more than was asked for; processors that nobody else wants may be used.
    limits = {name: amount for name, amount in amounts.items() if name != "cpu"}
    if resources.gpu:
        limits[resources.gpu_type] = str(resources.gpu_count)
    return {"requests": amounts, "limits": limits}


def _labels(manifest: Manifest) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": _name(manifest),
        "app.kubernetes.io/version": manifest.version.replace("+", "_"),
        "app.kubernetes.io/component": "agent",
        "app.kubernetes.io/part-of": "mediamesh",
    }


def _name(manifest: Manifest) -> str:
    """Return the agent's id as the name of an object, which has no dots and 63 characters at most (RFC 1035)."""
    name = manifest.id.replace(".", "-")
    if not manifest.image:
        raise InvalidRequest.of_field("image", f"{manifest.id} names no container image, which a cluster needs")
    if not _NAME.fullmatch(name):
        raise InvalidRequest.of_field("id", f"makes the name {name!r}, which has more than 63 characters")
    return name
