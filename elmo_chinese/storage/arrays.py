"""Arrays from files that nobody has to trust: nothing in them is executed, and memory is set aside for what is there.

What `paddle.save` writes for dictionaries of arrays (`.pdparams`, `.pdopt`), and what `numpy.savez` writes.
"""

import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

from elmo_chinese.files import CheckpointError

import numpy as np

PathLike = Union[str, Path]


# What a pickle of arrays asks for, whatever module of NumPy it was in when the pickle was made.
ALLOWED = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads what `paddle.save` writes for dictionaries of arrays and refuses every other class and function."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ALLOWED:
            return ALLOWED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


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
            content = _ArrayUnpickler(file).load()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}")
    except Exception as error:  # a damaged pickle raises nearly anything; all of it means the same here
        raise CheckpointError(f"{path}: not a readable Paddle parameter file: {error}")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected named arrays, found {type(content).__name__}")
    content.pop("StructuredToParameterName@@", None)
    wrong = [name for name, array in content.items() if type(name) is not str or not _is_of_numbers(array)]
    if wrong:
        raise CheckpointError(f"{path}: not arrays of numbers: {', '.join(map(str, wrong[:5]))}")
    return content


def _is_of_numbers(value: object) -> bool:
    return type(value) is np.ndarray and value.dtype.kind in "biuf"


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
