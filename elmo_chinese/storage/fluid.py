"""The original's files: one variable of Paddle Fluid each.

Little endian: uint32 0 | uint64 number of LoD levels, for each: uint64 byte count and the offsets | uint32 0 | int32
length of the description | the description, a protobuf message with field 1 = data type (varint) and field 2 = sizes
(repeated varint) | the numbers, row by row, to the end. Nothing in these files is ever executed.
"""

import math
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator, List, Tuple, Union

from elmo_chinese.command import UserError

import numpy as np

# Protobuf data type number → the numbers in the file.
FLUID_TYPES = {2: np.dtype("<i4"), 3: np.dtype("<i8"), 5: np.dtype("<f4"), 6: np.dtype("<f8")}


class PretrainedError(UserError, ValueError):
    """A pretrained model that cannot be used as asked; the message says which file and why."""


def _varint(data: bytes, at: int) -> Tuple[int, int]:
    """Read one protobuf varint; return it and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise IndexError


def _description(data: bytes) -> Tuple[int, List[int]]:
    """Return data type number and shape from a protobuf TensorDesc."""
    data_type, shape, at = -1, [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag == 1 << 3:
            data_type = value
        elif tag == 2 << 3:
            shape.append(value)
        else:
            raise IndexError
    return data_type, shape


def _header(file: BinaryIO, size: int) -> Tuple[np.dtype, List[int]]:
    """Read up to the numbers; return their type and shape. Sizes are checked before anything is read."""

    def take(form: str) -> int:
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]

    if take("<I") != 0:
        raise ValueError("its first four bytes are not 0")
    for _ in range(min(take("<Q"), size)):
        length = take("<Q")
        if length > size - file.tell():
            raise ValueError(f"its level of detail claims {length} bytes")
        file.seek(length, os.SEEK_CUR)
    if take("<I") != 0:
        raise ValueError("the tensor's version is not 0")
    length = take("<i")
    if not 0 < length <= 1024:
        raise ValueError(f"its description claims {length} bytes")
    data_type, shape = _description(file.read(length))
    if len(shape) > 8:
        raise ValueError(f"it claims {len(shape)} dimensions")
    if data_type not in FLUID_TYPES:
        raise ValueError(f"data type number {data_type} is none of {sorted(FLUID_TYPES)}")
    return FLUID_TYPES[data_type], shape


@contextmanager
def _open_variable(path: Union[str, Path]) -> Iterator[Tuple[BinaryIO, np.dtype, List[int]]]:
    """Open one file of a Fluid folder at its numbers, after checking its header against its length."""
    try:
        size, file = os.path.getsize(path), open(path, "rb")
    except OSError as error:
        raise PretrainedError(f"cannot read {path}: {error.strerror}")
    with file:
        try:
            data_type, shape = _header(file, size)
        except (struct.error, IndexError):
            raise PretrainedError(f"{path}: not a Fluid variable file (its header is cut short or malformed)")
        except ValueError as error:
            raise PretrainedError(f"{path}: not a Fluid variable file: {error}")
        _check_size(path, size, file.tell(), data_type, shape)
        yield file, data_type, shape


def read_fluid_variable(path: Union[str, Path]) -> np.ndarray:
    """Return the array in one file of a Fluid folder.

    Raises:
        PretrainedError: not such a file, or shorter or longer than its header says.
    """
    with _open_variable(path) as (file, data_type, shape):
        return np.frombuffer(file.read(), dtype=data_type).reshape(shape)


def _check_size(path, size: int, start: int, data_type: np.dtype, shape: List[int]) -> None:
    expected = data_type.itemsize * math.prod(shape)
    if expected != size - start:
        raise PretrainedError(
            f"{path}: shape {shape} of {data_type.name} needs {expected} bytes of numbers, found {size - start}; "
            "the file is damaged, get it again"
        )


def fluid_shape(path: Union[str, Path]) -> List[int]:
    """Return the shape in the header of one file of a Fluid folder; raises like `read_fluid_variable`."""
    with _open_variable(path) as (_, _, shape):
        return shape


def write_fluid_variable(path: Union[str, Path], array: np.ndarray) -> None:
    """Write a float32 array as the original did."""
    sizes = b"".join(b"\x10" + _as_varint(size) for size in array.shape)
    description = b"\x08\x05" + sizes
    header = struct.pack("<IQIi", 0, 0, 0, len(description))
    Path(path).write_bytes(header + description + np.ascontiguousarray(array, "<f4").tobytes())


def _as_varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
