"""What agents need on Kubernetes: how much of a machine, and the objects that run them there."""

from __future__ import annotations

from mediamesh.kubernetes.calculator import calculated
from mediamesh.kubernetes.objects import Cluster, job, objects

__all__ = ["Cluster", "calculated", "job", "objects"]
