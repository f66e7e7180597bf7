"""Commands of the project, run by benchmarks."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command, log=None, output=None, threads=1):
    """Run a command of the project as a user would; what it says goes to a log, what it prints to an output file."""
    print("$", *command, flush=True)
    command = [sys.executable if part == "python" else str(part) for part in command]
    settings = dict(cwd=ROOT, env={**os.environ, "MKL_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)})
    with contextlib.ExitStack() as files:
        if log:
            settings["stdout"] = settings["stderr"] = files.enter_context(open(log, "a", encoding="utf-8"))
        if output:
            settings["stdout"] = files.enter_context(open(output, "w", encoding="utf-8"))
        before = os.path.getsize(log) if log else 0
        if subprocess.run(command, **settings).returncode:
            raise RuntimeError(f"{' '.join(command)} failed" + (f", see {log}" if log else ""))
    if log and b"\nasked to stop: saved" in Path(log).read_bytes()[before:]:
        raise RuntimeError(f"stopped before it was done, see {log}; start this again")
