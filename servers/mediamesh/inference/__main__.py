"""``python -m mediamesh.inference`` runs the inference server alone."""

from __future__ import annotations

from mediamesh.kit.process import main

if __name__ == "__main__":
    main("inference")
