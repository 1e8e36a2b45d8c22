"""Streams: opens them, publishes to them and reads them, through breaks of the connection and of servers."""

from __future__ import annotations

from mediamesh.client.streams.client import StreamClient
from mediamesh.client.streams.patience import Patience
from mediamesh.client.streams.publisher import Publisher
from mediamesh.client.streams.reading import Frame, Place, is_last, resumed

__all__ = ["Frame", "Patience", "Place", "Publisher", "StreamClient", "is_last", "resumed"]
