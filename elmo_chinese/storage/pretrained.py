"""Pretrained biLM parameters from files: Fluid's one-file-per-variable folders and our own checkpoints.

Either may be packed as a `.tar.gz`, or far away (`archive.py`).

A Fluid file is, little endian: uint32 0 | uint64 number of LoD levels, for each: uint64 byte count and
the offsets | uint32 0 | int32 length of the description | the description, a protobuf message with
field 1 = data type (varint) and field 2 = sizes (repeated varint) | the numbers, row by row, to the end.
Nothing in these files is ever executed.
"""

import json
import math
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple, Union

from elmo_chinese.command import UserError
from elmo_chinese.console import say
from elmo_chinese.storage.archive import local_folder
from elmo_chinese.storage.checkpoint import (
    INFO_FILE,
    KINDS,
    MODEL_FILE,
    VOCABULARY_FILE,
    CheckpointError,
    kind_of,
    read_arrays,
    verify,
)
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import paddle
from paddle import nn

# Protobuf data type number → the numbers in the file.
FLUID_TYPES = {2: np.dtype("<i4"), 3: np.dtype("<i8"), 5: np.dtype("<f4"), 6: np.dtype("<f8")}
# The released archive has no softmax; a language model has no mix for a task.
MAY_BE_MISSING = ("softmax_weight", "softmax_bias", "ELMo_w", "ELMo_gamma")


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


def _local_folder(path: Union[str, Path]) -> Path:
    """Return the folder itself, or that of an unpacked archive."""
    try:
        return local_folder(path)
    except InputError as error:
        raise PretrainedError(str(error))


def pretrained_sizes(path: Union[str, Path]) -> Tuple[Dict[str, float], Optional[Vocabulary]]:
    """Return the sizes of the biLM in a folder, as arguments of `BiLSTM`, and its vocabulary if it has one."""
    folder = _local_folder(path)
    if (folder / MODEL_FILE).is_file():
        return _own_sizes(folder)
    shapes = []
    for name in ("embedding_para", "lstmp_0.w_1"):
        if not (folder / name).is_file():
            raise PretrainedError(f"{path}: no {name} in it, so it is neither a Fluid folder nor a checkpoint")
        shapes.append(fluid_shape(folder / name))
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1] or 0 in sum(shapes, []):
        raise PretrainedError(
            f"{path}: embedding_para {shapes[0]} and lstmp_0.w_1 {shapes[1]} are not [words, embed] and [hidden, embed]"
        )
    (vocab_size, embed_size), (hidden_size, _) = shapes
    num_layers = len(list(folder.glob("fw_layer[0-9]*_gate_w")))
    if not num_layers:
        raise PretrainedError(f"{path}: no fw_layer1_gate_w in it")
    return dict(vocab_size=vocab_size, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers), None


def bilm_numbers(vocab_size: int, embed_size: int, hidden_size: int, num_layers: int) -> int:
    """Return how many numbers a biLM of these sizes has, without its softmax."""
    return vocab_size * embed_size + 2 * num_layers * hidden_size * (9 * embed_size + 4)


def _own_sizes(folder: Path) -> Tuple[Dict[str, float], Vocabulary]:
    """Return what `checkpoint.json` says of the network, if it fits the size of the parameters, and the vocabulary."""
    try:
        verify(folder, (MODEL_FILE, VOCABULARY_FILE, INFO_FILE))
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if kind_of(info) != KINDS["rows"]:
            raise PretrainedError(f"{folder} is {kind_of(info)}, not {KINDS['rows']}")
        sizes = info["model"]
        whole = [sizes[name] for name in ("vocab_size", "embed_size", "hidden_size", "num_layers")]
        clips = [sizes[name] for name in ("cell_clip", "proj_clip")]
        if len(sizes) != 6 or not all(type(size) is int and size > 0 for size in whole):
            raise ValueError(f"expected whole sizes, found {sizes}")
        if not all(type(clip) in (int, float) and clip > 0 for clip in clips):
            raise ValueError(f"expected clips above 0, found {sizes}")
        vocabulary = Vocabulary(folder / VOCABULARY_FILE)
    except (InputError, CheckpointError, PretrainedError) as error:
        raise PretrainedError(str(error))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PretrainedError(f"{folder / INFO_FILE}: not that of a language model ({error!r})")
    if sizes["vocab_size"] != vocabulary.size or 4 * bilm_numbers(*whole) > os.path.getsize(folder / MODEL_FILE):
        raise PretrainedError(
            f"{folder / INFO_FILE}: {sizes} does not fit {VOCABULARY_FILE} with {vocabulary.size} words "
            f"and {MODEL_FILE} with {os.path.getsize(folder / MODEL_FILE):,} bytes"
        )
    return sizes, vocabulary


def _own_names(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Give the arrays of one of our checkpoints the names of the original."""
    count = 1 + max((int(name.split(".")[2]) for name in arrays if name.startswith("lstm.forward_layers.")), default=-1)
    named = {}
    for name, array in arrays.items():
        part = name.split(".")
        if part[:2] == ["lstm", "embedding"]:
            named["embedding_para"] = array
        elif part[0] == "lstm":
            layer, backward = int(part[2]), part[1] == "backward_layers"
            number = layer + count if backward else layer
            gate = f"{'bw' if backward else 'fw'}_layer{layer + 1}_gate_w"
            rest = {"recurrent_w": "w_0", "projection_w": "w_1", "bias": "b_0"}
            named[gate if part[3] == "gate_w" else f"lstmp_{number}.{rest[part[3]]}"] = array
        else:
            named[name] = array
    return named


def read_pretrained(path: Union[str, Path], wanted: List[str]) -> Tuple[Dict[str, np.ndarray], List[str]]:
    """Return the wanted arrays by the original's names, and the names of what else is there."""
    folder = _local_folder(path)
    if (folder / MODEL_FILE).is_file():
        try:
            verify(folder, [MODEL_FILE])
            arrays = _own_names(read_arrays(folder / MODEL_FILE))
        except CheckpointError as error:
            raise PretrainedError(str(error))
        except (KeyError, IndexError, ValueError):
            raise PretrainedError(f"{folder / MODEL_FILE}: the names in it are not those of a biLM")
        found = {name: arrays[name] for name in wanted if name in arrays}
        return found, sorted(set(arrays) - set(found))
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    found = {name: read_fluid_variable(folder / name) for name in wanted if name in files}
    return found, [name for name in files if name not in found]


def load_pretrained(layer: nn.Layer, path: Union[str, Path]) -> None:
    """Fill the biLM parameters inside `layer` from `path`; see `bilm.init_pretraining_params`."""
    if not isinstance(layer, nn.Layer) or not paddle.in_dynamic_mode():
        raise PretrainedError(
            f"a paddle.nn.Layer is filled from {path}, in dynamic mode, got {type(layer).__name__}; leave out "
            "paddle.enable_static() and programs"
        )
    parameters: Dict[str, paddle.Tensor] = {}
    for part in layer.sublayers(include_self=True):
        if hasattr(part, "fluid_parameters"):
            for name, parameter in part.fluid_parameters().items():
                if parameters.setdefault(name, parameter) is not parameter:
                    raise PretrainedError(f"{type(layer).__name__} holds more than one biLM; fill each by itself")
    if not parameters:
        raise PretrainedError(f"{type(layer).__name__} holds no biLM, so there is nothing to fill from {path}")
    arrays, unexpected = read_pretrained(path, list(parameters))
    if not arrays:
        raise PretrainedError(
            f"{path}: nothing usable in it; expected files such as {', '.join(list(parameters)[:3])}, "
            f"or {MODEL_FILE}; found {', '.join(unexpected[:5]) or 'an empty folder'}"
        )
    wrong = [
        f"{path}/{name}: expected shape {list(parameters[name].shape)}, found {list(array.shape)}"
        for name, array in arrays.items()
        if list(array.shape) != parameters[name].shape
    ]
    if wrong:
        raise PretrainedError(
            "wrong sizes (do --embed_size, --hidden_size and the vocabulary fit?):\n  " + "\n  ".join(wrong)
        )
    missing = [name for name in parameters if name not in arrays]
    lacking = [name for name in missing if name not in MAY_BE_MISSING]
    if lacking:
        raise PretrainedError(f"{path}: missing {', '.join(lacking)} (do the layers fit --num_layers?)")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise PretrainedError(f"{path}/{name}: not all of it is finite numbers; the file is damaged, get it again")
    for name, array in arrays.items():
        parameters[name].set_value(array.astype(np.float32))
    say(_report(path, arrays, missing, unexpected))


def _report(path, arrays, missing, unexpected) -> str:
    line = f"loaded {len(arrays)} parameters from {path}"
    if missing:
        line += f"; not in it, so they keep their initial values: {', '.join(missing)}"
    if unexpected:
        shown = ", ".join(unexpected[:8]) + (" …" if len(unexpected) > 8 else "")
        line += f"; {len(unexpected)} others there were not used: {shown}"
    return line
