"""Memory given back to the system after a model was unloaded."""

from __future__ import annotations

import ctypes
import resource
import sys
from functools import cache
from typing import Any

__all__ = ["give_back", "limit"]


def limit(size: int) -> None:
    """Let the process have so many bytes of memory of its own: a run that wants more fails alone.

    Without a limit the kernel promises more than there is, and ends the process when it cannot keep that.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))


def give_back() -> None:
    """Let glibc return the pages that it keeps for later.

    onnxruntime frees a session's weights and arena with the session; glibc keeps freed pages between live ones. Nothing
    here refers to a session in a circle, so no garbage is collected: that would hold up every request meanwhile.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    # Other C libraries, such as musl, have none, and keep nothing.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
