"""The inner loops in C++ (`cpp/`): what each function takes; compiling, keeping, loading and calling them.

They are compiled at first use with the machine's g++ and kept in a cache. Without a compiler, on GPU, where
Paddle has no MKL, or with BILM_CPP=0 in the environment `library()` returns None, and its users (`lstmp.py`,
`softmax.py`, `gru.py`) do the same in Paddle operators.
"""

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.console import logger
from elmo_chinese.files import cache_folder, writing
from elmo_chinese.require_paddle import paddle

import numpy as np

FOLDER = Path(__file__).with_name("cpp")
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


def _cache_path(compiler: List[str]) -> Path:
    """Return where the library is kept: another file for each source, compiler and machine."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    processor = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line for line in lines if line.startswith("flags")), "")
    sources = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())]
    parts = [*sources, str([*compiler[1:], *FLAGS]), version, processor, platform.machine()]
    key = hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()[:16]
    return cache_folder() / f"kernels-{key}.so"


def _compile(compiler: List[str], path: Path) -> None:
    """Compile beside and rename, so that several processes may do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as beside:
        command = [*compiler, *FLAGS, *map(str, sorted(FOLDER.glob("*.cc"))), "-o", str(beside), "-ldl"]
        done = subprocess.run(command, stderr=subprocess.PIPE, universal_newlines=True)
        if done.returncode:
            raise OSError(
                (done.stderr.strip() or f"{shlex.join(compiler)} ended with code {done.returncode}").splitlines()[0]
            )


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
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]  # it may hold more: "ccache g++ -O2"
    if not shutil.which(compiler[0]):
        return None, f"no {compiler[0]} found"
    try:
        path = _cache_path(compiler)
        if not path.is_file():
            logger.warning(f"compiling the inner loops in C++ to {path}; this takes some seconds, once")
            _compile(compiler, path)
        return _load(path), ""
    except (OSError, subprocess.SubprocessError) as error:  # the Paddle functions will do
        return None, f"elmo_chinese/network/{FOLDER.name}: {error}"


def library() -> Optional[ctypes.CDLL]:
    """Return the library if it can be used on the current device."""
    return compiled()[0] if paddle.device.get_device() == "cpu" else None


Array = Union[paddle.Tensor, np.ndarray, None]


class Kind(NamedTuple):
    """What the numbers of an argument are; `optional`: it may be None. Numbers compare faster than Paddle's dtypes."""

    name: str
    numpy: np.dtype
    paddle: int
    optional: bool = False


F32, F64, I32, I64 = (
    Kind(name, np.dtype(name), getattr(paddle, name).value) for name in ("float32", "float64", "int32", "int64")
)
F32_OR_NONE, F64_OR_NONE, I64_OR_NONE = (kind._replace(optional=True) for kind in (F32, F64, I64))


class Kernel(NamedTuple):
    """What a function of `cpp/` takes.

    bounds: the names of its float32 numbers.
    arguments: from its whole numbers, which are the parameters of this lambda, the name, kind and shapes of each
        list of arrays, one shape an array. A size that is a word is not known before and the same wherever that word
        stands; a shape of one size fits all arrays of so many numbers.
    """

    bounds: Sequence[str]
    arguments: Callable[..., List[Tuple[str, Kind, list]]]


CLIPS = ("cell_clip", "proj_clip")
KERNELS: Dict[str, Kernel] = {
    # recurrences.cc
    "lstm_steps": Kernel(
        CLIPS,
        lambda directions, steps, batch, embed, size, keep, rounds: [
            ("input", F32, [[steps, batch, embed]] * directions),
            ("gate_w", F32, [[embed, 4 * size]] * directions),
            ("recurrent_w", F32, [[embed, 4 * size]] * directions),
            ("projection_w", F32, [[size, embed]] * directions),
            ("bias", F32, [[4 * size]] * directions),
            ("hidden", F32, [[batch, embed]] * directions),
            ("cell", F32, [[batch, size]] * directions),
            ("gates", F32, [[steps if keep else 1, batch, 4 * size]] * directions),
            ("hiddens", F32, [[steps + 1, batch, embed]] * directions),
            ("cells", F32, [[steps + 1 if keep else 2, batch, size]] * directions),
        ],
    ),
    "lstm_steps_backward": Kernel(
        CLIPS,
        lambda directions, steps, batch, embed, size, rounds: [
            ("d_outputs", F32, [[steps, batch, embed]] * directions),
            ("gate_w", F32, [[embed, 4 * size]] * directions),
            ("recurrent_w", F32, [[embed, 4 * size]] * directions),
            ("projection_w", F32, [[size, embed]] * directions),
            ("hiddens", F32, [[steps + 1, batch, embed]] * directions),
            ("cells", F32, [[steps + 1, batch, size]] * directions),
            ("gates", F32, [[steps, batch, 4 * size]] * directions),
            ("d_projected", F32, [[steps, batch, embed]] * directions),
            ("d_input", F32_OR_NONE, [[steps, batch, embed]] * directions),
            ("d_bias", F32, [[4 * size]] * directions),
        ],
    ),
    "gru_steps": Kernel(
        (),
        lambda directions, steps, batch, size: [
            ("gate_w", F32, [[size, 2 * size]] * directions),
            ("candidate_w", F32, [[size, size]] * directions),
            ("gates", F32, [[steps, batch, 3 * size]] * directions),
            ("kept", F32, [[steps, batch, size]] * directions),
            ("hiddens", F32, [[steps + 1, batch, size]] * directions),
        ],
    ),
    "gru_steps_backward": Kernel(
        (),
        lambda directions, steps, batch, size: [
            ("d_hiddens", F32, [[steps, batch, size]] * directions),
            ("gate_w", F32, [[size, 2 * size]] * directions),
            ("candidate_w", F32, [[size, size]] * directions),
            ("hiddens", F32, [[steps + 1, batch, size]] * directions),
            ("gates", F32, [[steps, batch, 3 * size]] * directions),
        ],
    ),
    # bfloat16.cc
    "bfloat16_products": Kernel(
        (),
        lambda products, rows, inner, columns, transpose_x, transpose_y: [
            ("x", F32, [[inner, rows] if transpose_x else [rows, inner]] * products),
            ("y", F32, [[columns, inner] if transpose_y else [inner, columns]] * products),
            ("result", F32, [[rows, columns]] * products),
        ],
    ),
    # softmax.cc
    "softmax_losses": Kernel(
        (),
        lambda rows, columns: [
            ("logits", F32, [[rows, columns]]),
            ("bias", F32, [[columns]]),
            ("labels", I64_OR_NONE, [[rows]]),
            ("own", F32_OR_NONE, [[rows]]),
            ("hits", I64_OR_NONE, [[rows]]),
            ("losses", F32, [[rows]]),
        ],
    ),
    "softmax_losses_backward": Kernel(
        (),
        lambda rows, columns: [
            ("probabilities", F32, [[rows, columns]]),
            ("labels", I64_OR_NONE, [[rows]]),
            ("own", F32_OR_NONE, [[rows]]),
            ("d_losses", F32, [[rows]]),
            ("d_bias", F32, [[columns]]),
        ],
    ),
    # updates.cc
    "adagrad": Kernel(
        ("rate", "epsilon", "scale"),
        lambda size: [
            ("parameter", F32, [[size]]),
            ("gradient", F32, [[size]]),
            ("moment", F32, [[size]]),
        ],
    ),
    "adagrad_rows": Kernel(
        ("rate", "epsilon", "scale"),
        lambda count, width: [
            ("rows", I64, [[count]]),
            ("parameter", F32, [["table", width]]),
            ("gradient", F32, [[count, width]]),
            ("moment", F32, [["table", width]]),
        ],
    ),
    # tagging.cc
    "tag_sentences": Kernel(
        (),
        lambda sentences, blocks, embed, extra, size, tags: [
            ("lengths", I64, [[sentences]]),
            ("ids", I64, [["words"]]),
            ("vectors", F32_OR_NONE, [["words", extra]]),
            ("embedding", F32, [["vocabulary", embed]]),
            ("input_w", F32, [[extra + embed, 3 * size]] * 2 + [[2 * size, 3 * size]] * (2 * blocks - 2)),
            ("input_b", F32, [[3 * size]] * (2 * blocks)),
            ("gate_w", F32, [[size, 2 * size]] * (2 * blocks)),
            ("candidate_w", F32, [[size, size]] * (2 * blocks)),
            ("output", F32, [[2 * size, tags], [tags], [tags + 2, tags]]),
            ("path", I64, [["words"]]),
        ],
    ),
    "rank_sentences": Kernel(
        (),
        lambda sentences, word_size, tag_size, size, inner, ranks: [
            ("lengths", I64, [[sentences]]),
            ("ids", I64, [["words"], ["words"]]),
            ("tables", F32, [["vocabulary", word_size], ["tags", tag_size]]),
            ("input_w", F32, [[word_size + tag_size, 4 * size]] * 2),
            ("input_b", F32, [[4 * size]] * 2),
            ("recurrent_w", F32, [[size, 4 * size]] * 2),
            ("peephole", F32, [[3 * size]] * 2),
            ("dense", F32, [[2 * size, inner], [inner], [inner, ranks], [ranks]]),
            ("found", I64, [["words"]]),
        ],
    ),
    # cutting.cc
    "plant_tree": Kernel(
        (),
        lambda words, size: [
            ("lengths", I64, [[words]]),
            ("characters", I32, [["characters"]]),
            ("keys", I64, [[size]]),
            ("numbers", I32, [[size]]),
        ],
    ),
    "cut_texts": Kernel(
        (),
        lambda texts, words, size: [
            ("lengths", I64, [[texts]]),
            ("characters", I32, [["characters"]]),
            ("keys", I64, [[size]]),
            ("numbers", I32, [[size]]),
            ("scores", F64, [[words + 1]]),
            ("changed", I64_OR_NONE, [[texts], ["changes"]]),
            ("other_scores", F64_OR_NONE, [["changes"]]),
            ("last", I32, [["characters"]]),
        ],
    ),
}


class Fixed(tuple):
    """Arrays that are handed over again and again: checked at first, and again when a tensor among them has moved."""

    def __init__(self, arrays: Sequence[Array]):
        self.tensors = [array for array in self if not isinstance(array, np.ndarray)]
        self.pointers, self.found_at = None, None

    def known(self, shapes: list) -> Optional[ctypes.Array]:
        """Return the pointers to them, None where they are to be checked: of other shapes, or elsewhere than before."""
        where = shapes, [tensor.data_ptr() for tensor in self.tensors]
        if self.found_at != where:
            self.found_at, self.pointers = where, None
        return self.pointers


def _same_shape(found: Sequence[int], right: list, named: Dict[str, int]) -> bool:
    """Compare a shape with that of the table; `named`: the sizes so far that are words there."""
    if len(right) == 1:
        found = [math.prod(found)]
    right = [named.setdefault(size, found[k]) if isinstance(size, str) else size for k, size in enumerate(right)]
    return right == [*found]


def _address(array: Array, kind: Kind, shape: list, named: Dict[str, int]) -> Optional[int]:
    """Return where the numbers of an argument are, None for None; raise TypeError if the table has it otherwise."""
    if array is None and kind.optional:
        return None
    if array is None:
        raise TypeError(f"expected {kind.name} {shape}, found None")
    if isinstance(array, np.ndarray):
        same, contiguous, address = (
            array.dtype == kind.numpy,
            array.flags.c_contiguous,
            array.ctypes.data,
        )
    else:
        same, contiguous, address = array.dtype.value == kind.paddle, array.is_contiguous(), array.data_ptr()
    found = [*array.shape]
    if not (same and contiguous and (found == shape or _same_shape(found, shape, named))):
        dtype = str(array.dtype).replace("paddle.", "") + ("" if contiguous else ", not contiguous")
        raise TypeError(f"expected {kind.name} {shape}, found {found} {dtype}")
    return address


def call(name: str, sizes: Sequence[int], bounds: Sequence[float], *arrays: Sequence[Array]) -> None:
    """Call a function of the library; other Python threads run meanwhile.

    Args:
        name: of the function.
        sizes, bounds: its whole numbers, and its float32 ones.
        arrays: lists of contiguous tensors or arrays (or None), handed over as arrays of pointers; see also `Fixed`.

    Raises:
        TypeError: they are not what `KERNELS` says; names the function and the argument.
    """
    kernel, named, pointers = KERNELS[name], {}, []
    arguments = kernel.arguments(*sizes)
    if len(arguments) != len(arrays) or len(kernel.bounds) != len(bounds):
        raise TypeError(f"{name} takes {[*kernel.bounds]} and {[argument for argument, _, _ in arguments]}")
    for (argument, kind, shapes), group in zip(arguments, arrays):
        known = group.known(shapes) if isinstance(group, Fixed) else None
        if known:
            pointers.append(known)
            continue
        if len(group) != len(shapes):
            raise TypeError(f"{name}: {argument}: expected {len(shapes)} arrays, found {len(group)}")
        try:
            addresses = [_address(array, kind, shape, named) for array, shape in zip(group, shapes)]
        except TypeError as error:
            raise TypeError(f"{name}: {argument}: {error}")
        pointers.append((ctypes.c_void_p * len(shapes))(*addresses))
        if isinstance(group, Fixed):
            group.pointers = pointers[-1]
    getattr(library(), name)(*map(ctypes.c_int64, sizes), *map(ctypes.c_float, bounds), *pointers)


def describe() -> str:
    """Return a line for the start of a run: whether the library is used, and why not."""
    if library():
        return "inner loops in C++"
    if paddle.device.get_device() != "cpu":
        return "inner loops in Paddle operators"
    return f"inner loops in Paddle operators ({compiled()[1]}); slower, same results"
