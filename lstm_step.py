"""The elementwise part of an LSTM step: in Paddle operators, and fused in a C++ operator for CPU.

`choose()` returns the three functions to use. The C++ operator (`lstm_step.cc`) is compiled at first use
with the machine's g++ and kept in a cache; without a compiler, on GPU, or with BILM_CPP=0 in the environment
the Paddle functions do the same.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Tuple

import paddle
import paddle.nn.functional as F

SOURCE = Path(__file__).with_name("lstm_step.cc")
FLAGS = ["-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno"]


class StepFunctions(NamedTuple):
    """Functions of one step. Gate columns are candidate, input, forget, output; `bound` clips the cell.

    step: (gate `[batch, 4·hidden]`, cell `[batch, hidden]`, bound) → activated gates, new cell, and output
        gate · tanh(new cell).
    step_grad: (gradients of output and new cell, activated gates, cell, new cell, bound) → gradients of gate
        and cell.
    clip_grad: (a, b, value, bound) → a + b where |value| < bound, else 0.
    """

    step: Callable
    step_grad: Callable
    clip_grad: Callable


def _step(gate, cell, bound):
    candidate, in_gate, forget_gate, out_gate = paddle.split(gate, 4, axis=1)
    candidate = paddle.tanh(candidate)
    in_gate, forget_gate, out_gate = F.sigmoid(in_gate), F.sigmoid(forget_gate), F.sigmoid(out_gate)
    cell = paddle.clip(candidate * in_gate + cell * forget_gate, -bound, bound)
    activated = paddle.concat([candidate, in_gate, forget_gate, out_gate], axis=1)
    return activated, cell, out_gate * paddle.tanh(cell)


def _step_grad(d_output, d_next, activated, cell, next_cell, bound):
    candidate, in_gate, forget_gate, out_gate = paddle.split(activated, 4, axis=1)
    squashed = paddle.tanh(next_cell)
    d_cell = _clip_grad(d_next, d_output * out_gate * (1 - squashed * squashed), next_cell, bound)
    d_gate = [
        d_cell * in_gate * (1 - candidate * candidate),
        d_cell * candidate * in_gate * (1 - in_gate),
        d_cell * cell * forget_gate * (1 - forget_gate),
        d_output * squashed * out_gate * (1 - out_gate),
    ]
    return paddle.concat(d_gate, axis=1), d_cell * forget_gate


def _clip_grad(a, b, value, bound):
    # A clipped value equals the bound and has no gradient.
    return (a + b) * (value.abs() < bound).astype(value.dtype)


PADDLE = StepFunctions(_step, _step_grad, _clip_grad)


def _cache_folder(compiler: str) -> Path:
    """Return where the compiled operator is kept: another one for each source, Paddle, compiler and machine."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    processor = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line for line in lines if line.startswith("flags")), "")
    parts = [SOURCE.read_text(encoding="utf-8"), str(FLAGS), paddle.__version__, sys.version, version, processor]
    key = hashlib.sha256("\n".join([*parts, platform.machine()]).encode("utf-8")).hexdigest()[:16]
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "elmo_chinese" / f"lstm_step-{key}"


def _compile(folder: Path) -> None:
    """Compile beside and rename, so that several processes may do it at once."""
    from paddle.utils import cpp_extension

    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=".compiling-", dir=folder.parent)
    try:
        cpp_extension.load("lstm_step_ops", [str(SOURCE)], extra_cxx_cflags=FLAGS, build_directory=beside)
        try:
            os.rename(beside, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _load(folder: Path) -> StepFunctions:
    from paddle.utils.cpp_extension import load_op_meta_info_and_register_op

    (library,) = folder.glob("**/lstm_step_ops*.so")
    load_op_meta_info_and_register_op(str(library))
    run = paddle.base.core.eager._run_custom_op
    return StepFunctions(
        functools.partial(run, "lstm_step"),
        functools.partial(run, "lstm_step_backward"),
        lambda *arguments: run("lstm_clip_backward", *arguments)[0],
    )


@functools.lru_cache(maxsize=None)
def compiled() -> Tuple[Optional[StepFunctions], str]:
    """Return the C++ functions, or None and why there are none: switched off, or they cannot be compiled here."""
    if os.environ.get("BILM_CPP") == "0":
        return None, "BILM_CPP=0"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None, "no g++ found"
    try:
        folder = _cache_folder(compiler)
        if not folder.is_dir():
            _compile(folder)
        return _load(folder), ""
    except Exception as error:  # whatever goes wrong while compiling, the Paddle functions will do
        return None, f"compiling {SOURCE.name} failed: {(str(error) or repr(error)).splitlines()[0]}"


def choose() -> StepFunctions:
    """Return the fastest functions for the current device."""
    return (paddle.device.get_device() == "cpu" and compiled()[0]) or PADDLE


def describe() -> str:
    """Return a line for the start of a run: which functions are used, and why."""
    if choose() is not PADDLE:
        return "LSTM step in C++"
    if paddle.device.get_device() != "cpu":
        return "LSTM step in Paddle operators"
    return f"LSTM step in Paddle operators ({compiled()[1]}); slower, same results"
