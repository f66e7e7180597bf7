"""Settings that must be made before Paddle is imported. Import this module first.

On CPU they decide the speed: Paddle starts with one math thread, its bundled MKL takes a slow path on
processors that are not Intel's, and glibc gives every large array back to the system at once
(`benchmarks/` measures what each is worth). Whatever the user has set in the environment wins.
"""

import ctypes
import os
import signal
import sys
import warnings

import numpy  # noqa: F401  before paddle: paddle exports zlib's names, and NumPy must find its own

MALLOC_OPTIONS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}


def _processor_vendor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return ""


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_launcher() -> None:
    """Let Linux kill this process when Paddle's launcher, if that started it, is gone.

    The launcher gives each process a session of its own: killed itself, it would leave them at work.
    """
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            launched = b"paddle.distributed.launch" in file.read()
    except OSError:  # not Linux, or the parent is out of sight
        return
    if launched:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare() -> str:
    """Make the settings and return one line that says what they are."""
    if "paddle" in sys.modules:
        raise RuntimeError("import runtime before paddle: its settings come too late otherwise")
    _end_with_launcher()
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's start-up lines; errors still show
    warnings.filterwarnings("ignore", "No ccache found")  # of Paddle 3 at each start; nothing here is built with it
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))
    threads = os.environ.setdefault("MKL_NUM_THREADS", str(max(1, _available_cores() // processes)))
    os.environ.setdefault("FLAGS_paddle_num_threads", threads)
    settings = [f"{threads} math threads"]
    if _processor_vendor() == "AuthenticAMD":
        settings.append("MKL_DEBUG_CPU_TYPE=" + os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5"))
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, other C libraries may not
        if mallopt and all([mallopt(*option) for option in MALLOC_OPTIONS.values()]):
            settings.append("malloc keeps large blocks")
    return ", ".join(settings)


SETTINGS = prepare()
