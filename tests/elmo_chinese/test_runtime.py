"""elmo_chinese/runtime.py: the same settings in any order of imports, and what the user set wins."""

import ctypes
import json
import math
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

from elmo_chinese import runtime

import pytest
from conftest import ROOT

SHOW = """
import ctypes, json, os, paddle
from elmo_chinese import runtime
try:
    mkl = ctypes.CDLL(os.path.join(paddle.__path__[0], "libs", "libmklml_intel.so"))
    threads, path = mkl.MKL_Get_Max_Threads(), mkl.mkl_serv_cpu_detect()
except (OSError, AttributeError):
    threads = path = None
flag = "FLAGS_paddle_num_threads"
print(json.dumps([runtime.SETTINGS, threads, path, int(paddle.get_flags(flag)[flag])]))
"""
NAMES = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE", "PADDLE_LOCAL_SIZE", "OMP_NUM_THREADS")


def settings(imports, **environment):
    """Return what holds in a process that imports in some order: the line, MKL's threads and path, Paddle's threads."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    clean["PYTHONWARNINGS"] = "ignore:No ccache found"  # of Paddle 3, where it is imported first
    done = subprocess.run(
        [sys.executable, "-c", imports + SHOW], cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [*json.loads(done.stdout), done.stderr]


def test_the_same_whoever_is_imported_first():
    first = settings("import bilm")
    assert first == settings("import paddle, bilm") and first[-1] == ""
    assert first[3] == runtime.available_cores() and first[1] in (None, first[3])
    if runtime._processor_vendor() == "AuthenticAMD":
        assert first[2] == 5 and "MKL_DEBUG_CPU_TYPE=5" in first[0]


@pytest.mark.skipif(runtime._processor_vendor() != "AuthenticAMD", reason="the path is only MKL's on AMD processors")
def test_after_the_first_product_it_says_that_it_is_too_late():
    late = settings("import paddle; paddle.ones([9, 9]) @ paddle.ones([9, 9]); import bilm")
    assert "MKL on its slow path" in late[0] and late[2] == 0
    assert "RuntimeWarning: a matrix product was computed before this import" in late[-1]


def test_what_the_environment_says_wins():
    assert settings("import paddle", MKL_NUM_THREADS="1")[1] in (None, 1)
    assert settings("import bilm", FLAGS_paddle_num_threads="1")[3] == 1


def test_what_the_user_says_of_openmp_holds_and_what_paddle_says_does_not():
    for imports in ("import bilm", "import paddle, bilm"):
        assert settings(imports, OMP_NUM_THREADS="1")[3] == 1
    launched = settings("import bilm", OMP_NUM_THREADS="1", PADDLE_LOCAL_SIZE="1")
    assert launched[3] == runtime.available_cores()


@pytest.mark.parametrize("line, quotas, cores", [
    ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
    ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, [3.0]),
    ("4:cpuset:/x\n3:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, [0.5]),
    ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ("0::/gone", {}, []),
])  # fmt: skip
def test_quotas_of_containers_count(tmp_path, monkeypatch, line, quotas, cores):
    (tmp_path / "groups").write_text(line + "\n", encoding="utf-8")
    for name, text in quotas.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    assert list(runtime._quotas(tmp_path, tmp_path / "groups")) == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(runtime, "_quotas", lambda: iter(cores))
    assert runtime.available_cores() == (math.ceil(cores[0]) if cores else 8)


class Mkl:
    """Stands for the library; remembers what it was told."""

    def __init__(self, threads):
        self.threads = threads

    def MKL_Get_Max_Threads(self):
        return self.threads

    def MKL_Set_Num_Threads(self, threads):
        self.threads = threads


def fake_paddle(threads):
    flags = {"FLAGS_paddle_num_threads": threads}
    return SimpleNamespace(get_flags=lambda name: {name: flags[name]}, set_flags=flags.update, flags=flags)


@pytest.mark.parametrize("flag, mkl, expected", [(1, 1, 6), (3, 1, 3), (1, 4, 4)])
def test_threads_that_were_set_in_the_process_stay(monkeypatch, flag, mkl, expected):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runtime, "available_cores", lambda: 6)
    paddle, library = fake_paddle(flag), Mkl(mkl)
    assert runtime._threads_of_paddle(paddle, library) == f"{expected} math threads"
    changed = expected == 6
    assert (paddle.flags["FLAGS_paddle_num_threads"], library.threads) == ((6, 6) if changed else (flag, mkl))


def test_a_process_with_threads_of_its_own_keeps_its_numbers(monkeypatch):
    paddle = fake_paddle(1)
    monkeypatch.setitem(sys.modules, "paddle", paddle)
    monkeypatch.setattr(runtime, "_loaded_mkl", lambda _: Mkl(1))
    monkeypatch.setattr(ctypes, "CDLL", None)  # nor is malloc told anything
    done = threading.Event()
    worker = threading.Thread(target=done.wait)
    worker.start()
    try:
        assert runtime.prepare().startswith("math threads and malloc as they were")
    finally:
        done.set()
        worker.join()
    assert paddle.flags["FLAGS_paddle_num_threads"] == 1
