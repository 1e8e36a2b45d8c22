"""Fail when what is under ``generated/`` and ``docs/api/`` is not what ``proto/`` gives."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ("proto/buf.gen.yaml", "proto/buf.gen.web.yaml", "proto/buf.gen.docs.yaml")
FOLDERS = ("generated/python", "generated/ts/src", "generated/openapi", "docs/api")


def differences(ours: Path, fresh: Path) -> list[str]:
    """Return the paths, relative to the repository, of files that differ or exist on one side only."""
    found = []
    for folder in FOLDERS:
        names = {
            path.relative_to(root).as_posix()
            for root in (ours, fresh)
            for path in (root / folder).rglob("*.*")
            if path.is_file() and path.suffix != ".pyc"
        }
        pairs = ((name, ours / name, fresh / name) for name in names)
        found += [
            name
            for name, old, new in pairs
            if not (old.is_file() and new.is_file() and filecmp.cmp(old, new, shallow=False))
        ]
    return sorted(found)


def main() -> int:
    """Generate into a temporary folder and compare."""
    with tempfile.TemporaryDirectory() as tmp:
        for template in TEMPLATES:
            subprocess.run(["buf", "generate", "--template", template, "-o", tmp], cwd=ROOT, check=True)  # noqa: S607
        stale = differences(ROOT, Path(tmp))
    if stale:
        sys.stderr.write("stale, run `make generate`:\n" + "\n".join(stale) + "\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
