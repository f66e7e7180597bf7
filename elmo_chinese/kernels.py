"""The compiled inner loops (`kernels.cc`): compiling, keeping, loading and calling them.

They are compiled at first use with the machine's g++ and kept in a cache. Without a compiler, on GPU, where
Paddle has no MKL, or with BILM_CPP=0 in the environment `library()` returns None, and its users (`lstmp.py`,
`softmax.py`, `gru.py`) do the same in Paddle operators.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

from elmo_chinese.files import cache_folder
from elmo_chinese.require_paddle import paddle

import numpy as np

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = [
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
]


def _cache_path(compiler: str) -> Path:
    """Return where the library is kept: another file for each source, compiler and machine."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    processor = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line for line in lines if line.startswith("flags")), "")
    parts = [SOURCE.read_text(encoding="utf-8"), str(FLAGS), version, processor, platform.machine()]
    key = hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()[:16]
    return cache_folder() / f"kernels-{key}.so"


def _compile(compiler: str, path: Path) -> None:
    """Compile beside and rename, so that several processes may do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=".compiling-", dir=path.parent)
    try:
        made = os.path.join(beside, path.name)
        done = subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", made, "-ldl"], stderr=subprocess.PIPE, universal_newlines=True
        )
        if done.returncode:
            raise OSError((done.stderr.strip() or f"{compiler} ended with code {done.returncode}").splitlines()[0])
        os.replace(made, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _load(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    loaded.open_libraries.restype = ctypes.c_char_p
    why_not = loaded.open_libraries(os.path.join(paddle.__path__[0], "libs").encode())
    if why_not:
        raise OSError(why_not.decode())
    return loaded


@functools.lru_cache(maxsize=None)
def compiled() -> Tuple[Optional[ctypes.CDLL], str]:
    """Return the library, or None and why there is none: switched off, or it cannot be compiled or used here."""
    if os.environ.get("BILM_CPP") == "0":
        return None, "BILM_CPP=0"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None, "no g++ found"
    try:
        path = _cache_path(compiler)
        if not path.is_file():
            _compile(compiler, path)
        return _load(path), ""
    except (OSError, subprocess.SubprocessError) as error:  # the Paddle functions will do
        return None, f"{SOURCE.name}: {error}"


def library() -> Optional[ctypes.CDLL]:
    """Return the library if it can be used on the current device."""
    return compiled()[0] if paddle.device.get_device() == "cpu" else None


Array = Union[paddle.Tensor, np.ndarray, None]
NUMPY_KINDS = (np.float32, np.float64, np.int32, np.int64)


def _address(array: Array) -> Optional[int]:
    if array is None:
        return None
    if isinstance(array, np.ndarray):
        fits, address = array.dtype in NUMPY_KINDS and array.flags.c_contiguous, array.ctypes.data
    else:
        fits, address = array.dtype in (paddle.float32, paddle.int64) and array.is_contiguous(), array.data_ptr()
    if not fits:
        raise TypeError(f"expected contiguous numbers of a type that kernels.cc knows, found {array.dtype}")
    return address


def call(name: str, sizes: Sequence[int], bounds: Sequence[float], *arrays: Sequence[Array]) -> None:
    """Call a function of the library; other Python threads run meanwhile.

    Args:
        name: of the function.
        sizes, bounds: its whole numbers, and its float32 ones.
        arrays: lists of contiguous tensors or arrays (or None), handed over as arrays of pointers.
    """
    pointers = [(ctypes.c_void_p * len(group))(*map(_address, group)) for group in arrays]
    getattr(library(), name)(*map(ctypes.c_int64, sizes), *map(ctypes.c_float, bounds), *pointers)


def describe() -> str:
    """Return a line for the start of a run: whether the library is used, and why not."""
    if library():
        return "inner loops in C++"
    if paddle.device.get_device() != "cpu":
        return "inner loops in Paddle operators"
    return f"inner loops in Paddle operators ({compiled()[1]}); slower, same results"
