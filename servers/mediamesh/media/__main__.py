"""``python -m mediamesh.media`` runs the media server alone."""

from __future__ import annotations

from mediamesh.kit.process import main

if __name__ == "__main__":
    main("media")
