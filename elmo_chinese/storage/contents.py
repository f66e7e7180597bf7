"""What is in a checkpoint: arrays, the state of an optimizer, and what `checkpoint.json` says of it.

The files come from anybody: nothing in them is executed, and what they say is compared with what is there.
"""

import json
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Sequence, Tuple, Type, TypeVar, Union, get_args, get_type_hints

from elmo_chinese.files import SUMS_FILE, CheckpointError, damage
from elmo_chinese.require_paddle import paddle

import numpy as np

MODEL_FILE = "model.pdparams"
OPTIMIZER_FILE = "model.pdopt"
STATE_FILE = "state.npz"
VOCABULARY_FILE = "vocabulary.txt"
INFO_FILE = "checkpoint.json"
PAYLOAD = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, VOCABULARY_FILE, INFO_FILE)

PathLike = Union[str, Path]
T = TypeVar("T")
# What only the `checkpoint.json` of one kind has.
KINDS = {"tags": "a tagger", "limits": "a reader", "rows": "a language model"}


class Checkpoint(NamedTuple):
    """What is in a checkpoint folder."""

    path: Path
    info: Dict[str, Any]
    model: Dict[str, np.ndarray]
    optimizer: Dict[str, np.ndarray]
    state: Dict[str, np.ndarray]


# --- arrays, of files that `paddle.save` and `numpy.savez` write ---


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


# --- one checkpoint ---


def load(path: PathLike) -> Checkpoint:
    """Return a checkpoint after comparing every file with its checksum.

    Raises:
        CheckpointError: naming the file that is missing, cut short or changed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder (looked from {os.getcwd()})")
    if not (folder / SUMS_FILE).exists() and not (folder / INFO_FILE).exists():
        raise CheckpointError(f"{folder}: no checkpoint in it; training writes one after a while, or asked to stop")
    verify(folder)
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / INFO_FILE}: cannot be read: {error}")
    try:
        state = read_npz(folder / STATE_FILE)
    except Exception as error:  # a damaged archive raises nearly anything; all of it means the same here
        raise CheckpointError(f"{folder / STATE_FILE}: cannot be read: {error}")
    return Checkpoint(folder, info, read_arrays(folder / MODEL_FILE), read_arrays(folder / OPTIMIZER_FILE), state)


def verify(folder: Path, names: Sequence[str] = PAYLOAD) -> None:
    """Raise `CheckpointError` if one of these files of a checkpoint is missing or not as it was written."""
    problem = damage(folder, names)
    if problem:
        raise CheckpointError(problem)


# --- the optimizer ---


def optimizer_arrays(optimizer, model) -> Dict[str, paddle.Tensor]:
    """Return the optimizer's state under `<parameter's path in the model>/<accumulator>`.

    Paddle's own keys hold a per-process counter; these hold for every process and Paddle version.
    """
    paths = {parameter.name: path for path, parameter in model.named_parameters()}
    named = {}
    # What was restored waits there until the first step.
    for key, value in {**optimizer._accumulators_holder, **optimizer.state_dict()}.items():
        owner = max((name for name in paths if key.startswith(name + "_")), key=len, default=None)
        if owner is not None:
            named[f"{paths[owner]}/{key[len(owner) + 1 :]}"] = value
    return named


def restore_optimizer(optimizer, model, arrays: Dict[str, np.ndarray], where: PathLike) -> None:
    """Give an optimizer the state that `optimizer_arrays` returned; its learning rate stays.

    Raises:
        CheckpointError: naming `where` and what in it does not belong to a trained parameter of the model, or lacks.
    """
    trained = {path: parameter for path, parameter in model.named_parameters() if not parameter.stop_gradient}
    accumulators = {key.rpartition("/")[2] for key in arrays}
    shapes = {}
    for path in trained if arrays else ():
        for name in accumulators:
            found = arrays.get(f"{path}/{name}")  # of the parameter's shape, or one number (Adam's powers of beta)
            shapes[f"{path}/{name}"] = [1] if found is not None and found.shape == (1,) else trained[path].shape
    check_arrays(shapes, arrays, where)
    renamed = {}
    for key, value in arrays.items():
        path, _, accumulator = key.rpartition("/")
        renamed[f"{trained[path].name}_{accumulator}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(renamed)


# --- what it says of itself ---


def kind_of(info: Dict[str, Any]) -> str:
    """Return what a checkpoint is of, by its `checkpoint.json`; what tells of no other is a language model."""
    return next((kind for entry, kind in KINDS.items() if entry in info), KINDS["rows"])


def is_bilm(folder: Path) -> bool:
    """Say whether a folder holds a checkpoint of a language model."""
    try:
        return kind_of(json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))) == KINDS["rows"]
    except (OSError, ValueError, TypeError):  # no checkpoint, or a damaged one, which reading it names
        return False


def check_kind(found: Checkpoint, entry: str) -> None:
    """Raise `CheckpointError` if a checkpoint is not of the kind that has this entry in `checkpoint.json`."""
    if entry not in found.info:
        kind = kind_of(found.info)
        advice = "; --pretrain_elmo_model_path takes it to train one" if kind == KINDS["rows"] else ""
        raise CheckpointError(f"{found.path} is {kind}, not {KINDS[entry]}{advice}")


def check_info(found: Checkpoint, kinds: Dict[str, type]) -> None:
    """Raise `CheckpointError` if `checkpoint.json` lacks something of these types; numbers must not be below 0."""
    for name, kind in kinds.items():
        found.info[name] = _typed(found, name, found.info.get(name), (kind,))


def progress_of(found: Checkpoint, kind: Type[T]) -> T:
    """Return what stands under "progress" in `checkpoint.json` as a data class of numbers, some of them `Optional`.

    Raises:
        CheckpointError: naming what lacks, or cannot be.
    """
    values = _typed(found, "progress", found.info.get("progress"), (dict,))
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(kind).items()}
    progress = kind(**{name: _typed(found, name, values.get(name), kinds) for name, kinds in hints.items()})
    if progress.step != found.info["step"]:
        raise CheckpointError(f"{found.path / INFO_FILE}: two different steps, so no run can resume from it")
    return progress


def _typed(found: Checkpoint, name: str, value: Any, kinds: Sequence[type]) -> Any:
    if float in kinds and type(value) is int:
        value = float(value)
    if type(value) not in kinds or (type(value) in (int, float) and not value >= 0):
        raise CheckpointError(f"{found.path / INFO_FILE}: {name} is {value!r:.60}, so no run can resume from it")
    return value
