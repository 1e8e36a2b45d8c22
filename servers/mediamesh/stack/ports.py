"""Ports on 127.0.0.1: free ones, and who holds the others."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from contextlib import ExitStack

import psutil

__all__ = ["GRPC_TWIN", "clash", "free_ports", "holder", "is_free"]

# SeaweedFS listens for gRPC on each of its ports plus this.
GRPC_TWIN = 10_000
_CANDIDATES = range(10_000, 32_768 - GRPC_TWIN)


def free_ports(count: int, avoid: Collection[int] = ()) -> list[int]:
    """Return ports that are free, and whose gRPC twins are free; none of those to avoid.

    They lie below the ephemeral range of Linux (32768 and up): no outgoing connection takes one before its program
    listens on it.

    Raises:
        OSError: there are not that many.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
            if len(found) == count:
                return found
            if clash(port, avoid):
                continue
            try:
                for number in (port, port + GRPC_TWIN):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
    raise OSError(f"there are no {count} free ports between 10000 and 22767")


def clash(port: int, others: Collection[int]) -> bool:
    """Say whether a port, or its gRPC twin, is one of the others or a twin of theirs; nobody may listen there yet."""
    return not {port - GRPC_TWIN, port, port + GRPC_TWIN}.isdisjoint(others)


def is_free(port: int) -> bool:
    """Say whether a program could listen on the port."""
    with socket.socket() as probe:
        # What servers set too: connections of a program that just ended do not hold its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Return who listens on a port, as ``pid 123 (command line)``; says so when that cannot be seen."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"pid {connection.pid} ({command[:100]})"
    except psutil.Error:
        pass
    return "a program of another user"
