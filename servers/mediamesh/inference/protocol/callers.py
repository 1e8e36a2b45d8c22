"""Where a caller runs, for what only callers on this host may do."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["is_local"]


def is_local(context: Context) -> bool:
    """Tell whether a call comes from this host, the hop behind a proxy on this host included."""
    if not _is_own(_host(context.peer())):
        return False
    for key, value in context.invocation_metadata() or ():
        if key == "x-forwarded-for" and isinstance(value, str):
            # The proxy nearest to us writes the last; what stands before it is hearsay.
            return _is_own(value.rpartition(",")[2].strip())
    return True


def _host(peer: str) -> str:
    """Return the address of ``ipv4:127.0.0.1:5``, ``ipv6:%5B::1%5D:5`` or ``unix:``."""
    kind, _, rest = peer.partition(":")
    return "127.0.0.1" if kind.startswith("unix") else unquote(rest).rpartition(":")[0].strip("[]")


def _is_own(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if parsed.is_loopback:
        return True
    # Envoy names its host's address in place of the loopback. Only an address of this host can be bound.
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(parsed), 0))
        except OSError:
            return False
    return not parsed.is_unspecified and not parsed.is_multicast
