"""Runs every benchmark, or those named: ``make bench`` or ``python -m tests.benchmarks flow inference``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run each as a process of its own, so that none inherits the other's threads and memory."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    wanted = sys.argv[1:] or known
    if unknown := set(wanted) - set(known):
        sys.stderr.write(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}\n")
        return 2
    for name in wanted:
        print(f"── {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.bench_{name}"], check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
