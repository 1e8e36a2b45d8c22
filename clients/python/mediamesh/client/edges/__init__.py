"""Streams over the edges for plain HTTP: each module reads as `StreamClient.subscribe` does, over its own transport.

`sse`, `ndjson` and `websocket` need what ``pip install 'mediamesh[edges]'`` brings, and are not imported from here.
"""

from __future__ import annotations
