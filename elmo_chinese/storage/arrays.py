"""Arrays from files that nobody has to trust: nothing in them is executed, and memory is set aside for what is there.

What `paddle.save` writes for dictionaries of arrays (`.pdparams`, `.pdopt`), and what `numpy.savez` writes.
"""

import math
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

from elmo_chinese.files import CheckpointError

import numpy as np

PathLike = Union[str, Path]


class _Type:
    """Stands for `numpy.dtype` in a pickle: takes the name of a type of numbers and its order of bytes."""

    def __init__(self, name, *_):
        self.name, self.order = name, "="

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    """Stands for `numpy.ndarray` in a pickle: takes shape, type and bytes, and believes none of them."""

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, kind, fortran, content = state
        if not re.fullmatch("[<>=|][biuf][1248]", kind.order + kind.name):
            raise pickle.UnpicklingError(f"it asks for the type {kind.order + kind.name}, which is not of numbers")
        self.array = array_from(content, np.dtype(kind.order + kind.name), shape, fortran)


class _ArrayUnpickler(pickle._Unpickler):
    """Reads what `paddle.save` writes for dictionaries of arrays and refuses every other class.

    It is Python's own of the two unpicklers, because the other sets aside as much memory as a pickle tells it to.
    """

    STAND_INS = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Type}

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in self.STAND_INS:
            return self.STAND_INS[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


class _Bounded:
    """A file from which no more can be asked for than is there, because memory is set aside for what is asked for."""

    def __init__(self, file):
        self.file, self.size, self.readline = file, os.fstat(file.fileno()).st_size, file.readline

    def read(self, count):
        if count > self.size - self.file.tell():
            raise EOFError(f"{count} bytes are announced, {self.size - self.file.tell()} are left")
        return self.file.read(count)


def array_from(content: bytes, kind: np.dtype, shape: Tuple[int, ...], fortran: bool) -> np.ndarray:
    """Return bytes as an array, after comparing their number with the shape; nothing is set aside before."""
    if kind.hasobject or len(content) != kind.itemsize * math.prod(shape):
        raise ValueError(f"shape {shape} of {kind} does not fit {len(content)} bytes")
    return np.ndarray(shape, kind, content, order="F" if fortran else "C")


def read_arrays(path: PathLike) -> Dict[str, np.ndarray]:
    """Return the arrays of a `.pdparams` or `.pdopt` file without executing code from it.

    Raises:
        CheckpointError: damaged, or holds something else than arrays.
    """
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(_Bounded(file)).load()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}")
    except Exception as error:  # a damaged pickle raises nearly anything; all of it means the same here
        raise CheckpointError(f"{path}: not a readable Paddle parameter file: {error}")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected named arrays, found {type(content).__name__}")
    content.pop("StructuredToParameterName@@", None)
    arrays = {name: value.array for name, value in content.items() if isinstance(value, _Array)}
    wrong = [str(name) for name in content if arrays.get(name) is None or not isinstance(name, str)]
    if wrong:
        raise CheckpointError(f"{path}: not arrays: {', '.join(wrong[:5])}")
    return arrays


def read_npz(path: PathLike) -> Dict[str, np.ndarray]:
    """Return the arrays of an `.npz` that `np.savez` wrote, after comparing what it announces with its size."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > os.path.getsize(path):
                raise ValueError(f"{entry.filename} announces {entry.file_size} bytes")
            with archive.open(entry) as file:
                shape, fortran, kind = readers[np.lib.format.read_magic(file)](file)
                arrays[entry.filename[: -len(".npy")]] = array_from(file.read(), kind, shape, fortran)
    return arrays


def check_arrays(expected: Dict[str, Sequence[int]], arrays: Dict[str, np.ndarray], where: PathLike) -> None:
    """Raise `CheckpointError` if named arrays are not those of these shapes, or not float32."""
    for name in {**expected, **arrays}:
        wanted, found = expected.get(name), arrays.get(name)
        if wanted is None or found is None or list(found.shape) != list(wanted) or found.dtype != np.float32:
            there = "nothing" if found is None else f"{list(found.shape)} of {found.dtype}"
            raise CheckpointError(
                f"{where}: does not belong together with the rest: {name} should be "
                f"{'nothing' if wanted is None else f'{list(wanted)} of float32'}, is {there}"
            )
