"""``python -m mediamesh.streams`` runs the streams server alone."""

from __future__ import annotations

from mediamesh.kit.process import main

if __name__ == "__main__":
    main("streams")
