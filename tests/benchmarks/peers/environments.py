"""A virtual environment for each peer, made when it is first wanted."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["environment"]

HOME = Path(__file__).resolve().parents[3] / ".mediamesh" / "peers"


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the folder of an environment that has the requirements.

    Raises:
        RuntimeError: they cannot be installed.
    """
    folder = HOME / name
    done = folder / f"done-{hashlib.sha256(repr(requirements).encode()).hexdigest()[:12]}"
    if not done.exists():
        sys.stderr.write(f"{name}: making {folder}\n")
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=shutil.which("uv") is None)
        python = folder / "bin" / "python"
        uv = shutil.which("uv")
        install = [uv, "pip", "install", "-p", str(python)] if uv else [str(python), "-m", "pip", "install"]
        made = subprocess.run([*install, "-q", *requirements], capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"{name} cannot be installed: {made.stderr.strip()[-500:]}")
        done.touch()
    return folder
