"""Checkpoint folders: written whole or not at all, checked by checksum, read without executing anything.

    checkpoints/
      step_00010000/
        model.pdparams     parameters (paddle.save)
        model.pdopt        optimizer state, by parameter (paddle.save)
        state.npz          LSTM states of every row of the global batch, and the reader's position
        vocabulary.txt     the vocabulary that the word ids mean
        checkpoint.json    model sizes, flags, step, tokens seen, seed, versions, dev perplexity, …
        SHA256SUMS         checksums of the files above (`sha256sum -c SHA256SUMS` reads it)
      latest               name of the folder written last
      best                 name of the folder with the lowest dev perplexity

The random numbers of a step are a function of seed and step (`bilm.StepRandom`, `reader.py`), so those
two are the whole random state.
"""

import json
import math
import os
import pickle
import re
import shutil
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.files import SUMS_FILE, CheckpointError, damage, sync, write_sums, write_text
from elmo_chinese.metrics import say
from elmo_chinese.require_paddle import paddle

import numpy as np
import paddle.distributed as dist

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not kept apart
    fcntl = None

MODEL_FILE = "model.pdparams"
OPTIMIZER_FILE = "model.pdopt"
STATE_FILE = "state.npz"
VOCABULARY_FILE = "vocabulary.txt"
INFO_FILE = "checkpoint.json"
PAYLOAD = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, VOCABULARY_FILE, INFO_FILE)

PathLike = Union[str, Path]
LOCK_TRIES = 10  # half a second apart


def _lock(folder, root, flag):
    for wait in (*[0.5] * LOCK_TRIES, None):
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                raise CheckpointError(
                    f"another run is at work in {root} (it may have outlived its terminal or run.sh; `pgrep -af train` "
                    f"shows it); let it end, stop it with `kill`, or choose another {flag}"
                )
            time.sleep(wait)
        except OSError as error:
            return say(f"warning: {root} cannot be locked ({error.strerror}); let no other run write to it")


@contextmanager
def only_run(root: Path, flag: str) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it while this one lasts.

    The folder itself is locked, by the first process; killed, too, it loses the lock. One that is about to end is
    given some seconds.

    Args:
        root: the folder. flag: that which names it, for messages.

    Raises:
        CheckpointError: nothing can be written there, or another run is at work there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CheckpointError(f"cannot write to {root}: {error.strerror}; choose another {flag}")
    if not fcntl or dist.get_rank() != 0:
        yield
        return
    folder = os.open(root, os.O_RDONLY)
    try:
        _lock(folder, root, flag)
        yield
    finally:
        os.close(folder)


class Checkpoint(NamedTuple):
    """What is in a checkpoint folder."""

    path: Path
    info: Dict[str, Any]
    model: Dict[str, np.ndarray]
    optimizer: Dict[str, np.ndarray]
    state: Dict[str, np.ndarray]


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


def _read_state(path: Path) -> Dict[str, np.ndarray]:
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


def optimizer_arrays(optimizer, model) -> Dict[str, paddle.Tensor]:
    """Return the optimizer's state under `<parameter's path in the model>/<accumulator>`.

    Paddle's own keys hold a per-process counter; these hold for every process and Paddle version.
    """
    paths = {parameter.name: path for path, parameter in model.named_parameters()}
    named = {}
    for key, value in optimizer.state_dict().items():
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


def step_folder(root: PathLike, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return Path(root) / f"step_{step:08d}"


def _steps(root: Path) -> List[int]:
    """Return the steps with a complete checkpoint, in ascending order."""
    if not root.is_dir():
        return []
    return sorted(int(entry.name[5:]) for entry in root.iterdir() if re.fullmatch(r"step_\d{8,}", entry.name))


def _pointer(root: Path, name: str) -> Optional[int]:
    """Return the step that `latest` or `best` names, None if it names no folder there."""
    try:
        found = re.fullmatch(r"step_(\d{8,})", (root / name).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found and step_folder(root, int(found[1])).is_dir() else None


def save(
    root: PathLike,
    info: Dict[str, Any],
    model: Dict[str, Any],
    optimizer: Dict[str, Any],
    state: Dict[str, np.ndarray],
    vocabulary: str,
    keep: int = 3,
    best: bool = False,
) -> Path:
    """Write the checkpoint of step `info["step"]`, then drop those not wanted any more.

    Args:
        root: the folder of all checkpoints of a run; made if needed.
        info: goes to `checkpoint.json` as it is.
        model, optimizer: named tensors or arrays.
        state: named arrays.
        vocabulary: text of the vocabulary file.
        keep: so many of the newest stay, besides the best one.
        best: this one has the lowest dev perplexity so far.

    Raises:
        CheckpointError: writing failed (disk full, no permission …); what was there is intact.
    """
    root = Path(root)
    folder = step_folder(root, info["step"])
    beside = folder.with_name(folder.name + ".tmp")
    try:
        root.mkdir(parents=True, exist_ok=True)
        remove_unfinished(root)
        beside.mkdir()
        paddle.save(model, str(beside / MODEL_FILE))
        paddle.save(optimizer, str(beside / OPTIMIZER_FILE))
        np.savez(beside / STATE_FILE, **state)
        (beside / VOCABULARY_FILE).write_bytes(vocabulary.encode("utf-8"))
        text = json.dumps(info, indent=1, ensure_ascii=False, sort_keys=True)
        (beside / INFO_FILE).write_bytes((text + "\n").encode("utf-8"))
        write_sums(beside, PAYLOAD)
        for name in (*PAYLOAD, SUMS_FILE):
            sync(beside / name)
        sync(beside)
        if folder.exists():  # left over from a run that was taken back to an earlier step
            os.replace(folder, folder.with_name(folder.name + ".old.tmp"))
        os.replace(beside, folder)
        write_text(root / "latest", folder.name + "\n")
        if best:
            write_text(root / "best", folder.name + "\n")
        sync(root)
    except (OSError, RuntimeError, ValueError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(
            f"could not write the checkpoint of step {info['step']} to {folder}: {error}; older ones are intact"
        )
    remove_unfinished(root)
    _prune(root, info["step"], keep)
    return folder


def remove_unfinished(root: Path) -> None:
    """Delete the half-written folders that a killed run left behind."""
    for entry in root.glob("step_*.tmp"):
        shutil.rmtree(entry, ignore_errors=True)


def _prune(root: Path, step: int, keep: int) -> None:
    best = _pointer(root, "best")
    # Later steps belong to a run that was taken back to an earlier step; they are not ours to count.
    for old in [known for known in _steps(root) if known <= step][:-keep]:
        if old != best:
            shutil.rmtree(step_folder(root, old), ignore_errors=True)


def load(path: PathLike) -> Checkpoint:
    """Return a checkpoint after comparing every file with its checksum.

    Raises:
        CheckpointError: naming the file that is missing, cut short or changed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder (looked from {os.getcwd()})")
    verify(folder)
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / INFO_FILE}: cannot be read: {error}")
    try:
        state = _read_state(folder / STATE_FILE)
    except Exception as error:  # a damaged archive raises nearly anything; all of it means the same here
        raise CheckpointError(f"{folder / STATE_FILE}: cannot be read: {error}")
    return Checkpoint(folder, info, read_arrays(folder / MODEL_FILE), read_arrays(folder / OPTIMIZER_FILE), state)


def verify(folder: Path, names: Sequence[str] = PAYLOAD) -> None:
    """Raise `CheckpointError` if one of these files of a checkpoint is missing or not as it was written."""
    problem = damage(folder, names)
    if problem:
        raise CheckpointError(problem)


def check_info(found: Checkpoint, kinds: Dict[str, Any]) -> None:
    """Raise `CheckpointError` if `checkpoint.json` lacks something of these types; numbers must not be below 0.

    Args:
        kinds: type by name; `progress/step` is what stands under "step" in "progress".
    """
    for name, kind in kinds.items():
        value: Any = found.info
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        kind = kind if isinstance(kind, tuple) else (kind,)
        if float in kind and type(value) is int:
            value = float(value)
        if type(value) not in kind or (type(value) in (int, float) and not value >= 0):
            raise CheckpointError(f"{found.path / INFO_FILE}: {name} is {value!r:.60}, so no run can go on from it")
    if found.info["step"] != found.info["progress"]["step"]:
        raise CheckpointError(f"{found.path / INFO_FILE}: two different steps, so no run can go on from it")


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


def candidates(root: PathLike) -> Iterator[Path]:
    """Yield the checkpoint folders of a run that may be gone on from: `latest` first, then the ones before it."""
    root = Path(root)
    steps = _steps(root)
    latest = _pointer(root, "latest")
    for step in reversed(steps if latest is None else [step for step in steps if step <= latest]):
        yield step_folder(root, step)


def load_newest(root: PathLike) -> Tuple[Optional[Checkpoint], List[str]]:
    """Return the newest sound checkpoint (None if there is none at all), and what is wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints but none of them can be read.
    """
    damages: List[str] = []
    for folder in candidates(root):
        try:
            return load(folder), damages
        except CheckpointError as error:
            damages.append(str(error))
    if damages:
        raise CheckpointError(f"no checkpoint in {root} can be read:\n  " + "\n  ".join(damages))
    return None, damages
