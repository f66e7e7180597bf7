"""Settings of the process that decide the speed on CPU; importing any part of the package makes them.

Paddle starts with one math thread, its bundled MKL takes a slow path on processors that are not Intel's, and glibc
gives every large array back to the system at once (`benchmarks/levers.py` measures what each is worth). They are
best made before Paddle is imported, through the environment. Where Paddle is there already, its libraries are told
themselves: MKL takes another number of threads at any time, and chooses its path at the first matrix product.

Whatever the user has set wins: variables in the environment, numbers of threads set through Paddle. A process that
runs threads of its own, beside Paddle, keeps the numbers and the memory that it has.
"""

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Iterator, List, Mapping, Optional

import numpy  # noqa: F401  before paddle: paddle exports zlib's names, and NumPy must find its own

MALLOC_OPTIONS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}
TOO_LATE = (
    "a matrix product was computed before this import, so MKL stays on its slow path for AMD processors; "
    "import bilm (or lac) before that, or set MKL_DEBUG_CPU_TYPE=5 in the environment"
)


def _processor_vendor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return ""


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and the quotas of its control groups (containers)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def _quotas(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """Yield the cores that each control group above this process leaves it, as version 2 or 1 of Linux has them."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or "cpu" in controllers.split(","):
            top = root if controllers == "" else root / "cpu"
            group = top / path.lstrip("/")
            for folder in [top, *(parent for parent in [group, *group.parents] if top in parent.parents)]:
                with contextlib.suppress(OSError, ValueError):  # most groups have no quota
                    if controllers == "":
                        quota, period = map(int, (folder / "cpu.max").read_text(encoding="utf-8").split())
                    else:
                        files = (folder / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
                        quota, period = (int(file.read_text(encoding="utf-8")) for file in files)
                    if quota > 0 and period > 0:
                        yield quota / period


def _threads_of_the_user(environment: Mapping[str, str]) -> Optional[str]:
    """Return OMP_NUM_THREADS if the user set it: Paddle does, too, for itself and for what its launcher starts."""
    return None if "PADDLE_LOCAL_SIZE" in environment else environment.get("OMP_NUM_THREADS")


def _environment_at_start() -> Mapping[str, str]:
    """Return the environment that this process was started with, where the system tells."""
    try:
        pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


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


def _loaded_mkl(paddle) -> Optional[ctypes.CDLL]:
    """Return the MKL that Paddle has loaded, None where it brings none."""
    try:
        return ctypes.CDLL(str(Path(paddle.__path__[0]) / "libs" / "libmklml_intel.so"))
    except OSError:
        return None


def _threads_before_paddle() -> str:
    """Set how many threads Paddle will start with."""
    given = os.environ.get("MKL_NUM_THREADS") or os.environ.get("FLAGS_paddle_num_threads")
    given = given or _threads_of_the_user(os.environ)
    threads = given or str(max(1, available_cores() // int(os.environ.get("PADDLE_LOCAL_SIZE", 1))))
    os.environ.setdefault("MKL_NUM_THREADS", threads)
    os.environ.setdefault("FLAGS_paddle_num_threads", threads)
    return f"{threads} math threads"


def _threads_of_paddle(paddle, mkl: Optional[ctypes.CDLL]) -> str:
    """Set how many threads a Paddle that is loaded takes, unless somebody did before."""
    flag = "FLAGS_paddle_num_threads"
    now = max(int(paddle.get_flags(flag)[flag]), mkl.MKL_Get_Max_Threads() if mkl else 1)
    given = flag in os.environ or "MKL_NUM_THREADS" in os.environ or _threads_of_the_user(_environment_at_start())
    if now == 1 and not given:
        now = max(1, available_cores() // int(os.environ.get("PADDLE_LOCAL_SIZE", 1)))
        paddle.set_flags({flag: now})
        if mkl:
            mkl.MKL_Set_Num_Threads(now)
    return f"{now} math threads"


def _amd_path(mkl: Optional[ctypes.CDLL]) -> List[str]:
    """Lead MKL off its slow path on AMD processors; warn where that is too late."""
    if _processor_vendor() != "AuthenticAMD":
        return []
    path = os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    taken = getattr(mkl, "mkl_serv_cpu_detect", None)  # the path that MKL has taken, or takes at this moment
    if taken and path.isdigit() and taken() != int(path):
        warnings.warn(TOO_LATE, RuntimeWarning, stacklevel=2)
        return ["MKL on its slow path"]
    return [f"MKL_DEBUG_CPU_TYPE={path}"]


def _large_blocks_kept() -> List[str]:
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return []
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, other C libraries may not
    kept = mallopt and all([mallopt(*option) for option in MALLOC_OPTIONS.values()])
    return ["malloc keeps large blocks"] if kept else []


def _runs_threads() -> bool:
    """Say whether the program has threads of its own at work; those of notebooks and the like end with it."""
    main = threading.main_thread()
    return any(thread is not main and not thread.daemon for thread in threading.enumerate())


def prepare() -> str:
    """Make the settings and return one line that says what they are."""
    _end_with_launcher()
    warnings.filterwarnings("ignore", "No ccache found")  # of Paddle 3 at each start; nothing here is built with it
    paddle = sys.modules.get("paddle")
    if paddle is None:
        os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's start-up lines; errors still show
        settings = [_threads_before_paddle(), *_amd_path(None)]
    else:
        mkl = _loaded_mkl(paddle)
        settings = _amd_path(mkl)
        if _runs_threads():
            return ", ".join(["math threads and malloc as they were", *settings])
        settings.insert(0, _threads_of_paddle(paddle, mkl))
    return ", ".join([*settings, *_large_blocks_kept()])


SETTINGS = prepare()
