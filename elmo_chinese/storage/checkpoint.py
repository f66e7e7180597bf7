"""Checkpoint folders: written whole or not at all, checked by checksum, read without executing anything.

    checkpoints/
      step_00010000/
        model.pdparams     parameters (paddle.save)
        model.pdopt        optimizer state, by parameter (paddle.save)
        state.npz          LSTM states of every row of the global batch, and the reader's position
        vocabulary.txt     the vocabulary that the word ids mean
        checkpoint.json    model sizes, flags, step, tokens seen, seed, versions, dev perplexity, …
        SHA256SUMS         checksums of the files above (`sha256sum -c SHA256SUMS` reads it)
      best_00008000_1a2b3c4d/  the same files (hard links) of the best checkpoint; its name tells its content
      latest               name of the folder written last
      best                 name of the folder of the best checkpoint

The random numbers of a step are a function of seed and step (`bilm.StepRandom`, `reader.py`), so those
two are the whole random state.
"""

import json
import math
import os
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_type_hints,
)

from elmo_chinese.files import (
    SUMS_FILE,
    CheckpointError,
    damage,
    link_folder,
    lock_folder,
    remove,
    remove_unfinished,
    sha256,
    write_sums,
    write_text,
    writing,
)
from elmo_chinese.require_paddle import paddle
from elmo_chinese.storage.arrays import check_arrays, read_arrays, read_npz

import numpy as np
import paddle.distributed as dist

MODEL_FILE = "model.pdparams"
OPTIMIZER_FILE = "model.pdopt"
STATE_FILE = "state.npz"
VOCABULARY_FILE = "vocabulary.txt"
INFO_FILE = "checkpoint.json"
PAYLOAD = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, VOCABULARY_FILE, INFO_FILE)

# The names that `latest` and `best` may hold; older versions had no folders of their own for the best one.
FOLDERS = {"latest": re.compile(r"step_\d{8,}"), "best": re.compile(r"best_\d{8,}_[0-9a-f]{8}|step_\d{8,}")}

PathLike = Union[str, Path]
T = TypeVar("T")
# What only the `checkpoint.json` of one kind has.
KINDS = {"tags": "a tagger", "limits": "a reader", "rows": "a language model"}


@contextmanager
def only_run(root: Path, flag: str) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it while this one lasts; the first process locks it.

    Args:
        root: the folder. flag: that which names it, for messages.

    Raises:
        CheckpointError: nothing can be written there, or another run is at work there.
    """
    busy = (
        f"another run is at work in {root} (it may have outlived its terminal or run.sh; `pgrep -af train` shows it); "
        f"let it end, stop it with `kill`, or choose another {flag}"
    )
    with ExitStack() as stack:
        try:
            if dist.get_rank() == 0:
                stack.enter_context(lock_folder(root, busy))
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".writable-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise CheckpointError(f"cannot write to {root}: {error.strerror}; choose another {flag}")
        yield


class Score(NamedTuple):
    """By what the best checkpoint of a run is known.

    Attributes:
        value: the higher the better: F1, or minus the perplexity.
        text: checksum of the text it was measured on; scores on different texts are not compared.
    """

    value: float
    text: str


class Checkpoint(NamedTuple):
    """What is in a checkpoint folder."""

    path: Path
    info: Dict[str, Any]
    model: Dict[str, np.ndarray]
    optimizer: Dict[str, np.ndarray]
    state: Dict[str, np.ndarray]


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


def step_folder(root: PathLike, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return Path(root) / f"step_{step:08d}"


def _steps(root: Path) -> List[int]:
    """Return the steps with a complete checkpoint, in ascending order."""
    if not root.is_dir():
        return []
    return sorted(int(entry.name[5:]) for entry in root.iterdir() if re.fullmatch(r"step_\d{8,}", entry.name))


def _pointed(root: Path, name: str) -> Optional[Path]:
    """Return the folder that `latest` or `best` names, None if it names no folder there."""
    try:
        found = (root / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return root / found if FOLDERS[name].fullmatch(found) and (root / found).is_dir() else None


# --- writing ---


def save(
    root: PathLike,
    info: Dict[str, Any],
    model: Dict[str, Any],
    optimizer: Dict[str, Any],
    state: Dict[str, np.ndarray],
    vocabulary: str,
    keep: int = 3,
    score: Optional[Score] = None,
) -> Path:
    """Write the checkpoint of step `info["step"]`, then drop those not wanted any more.

    Args:
        root: the folder of all checkpoints of a run; made if needed.
        info: goes to `checkpoint.json` as it is, with the score.
        model, optimizer: named tensors or arrays.
        state: named arrays.
        vocabulary: text of the vocabulary file.
        keep: so many of the newest stay, besides the best one.
        score: of this one, None if it was not evaluated.

    Raises:
        CheckpointError: writing failed (disk full, no permission …); what was there is intact.
    """
    root = Path(root)
    folder = step_folder(root, info["step"])
    text = json.dumps({**info, "score": score and score._asdict()}, indent=1, ensure_ascii=False, sort_keys=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clean_up(root)
        with writing(folder) as beside:
            beside.mkdir()
            paddle.save(model, str(beside / MODEL_FILE))
            paddle.save(optimizer, str(beside / OPTIMIZER_FILE))
            np.savez(beside / STATE_FILE, **state)
            (beside / VOCABULARY_FILE).write_bytes(vocabulary.encode("utf-8"))
            (beside / INFO_FILE).write_bytes((text + "\n").encode("utf-8"))
            write_sums(beside, PAYLOAD)
        if score:
            _choose_best(root, score.text)
        write_text(root / "latest", folder.name + "\n")  # last: a run resumes from here, and evaluates no more
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"could not write the checkpoint of step {info['step']} to {folder}: {error}; older ones are intact"
        )
    # Later steps belong to a run that was taken back to an earlier step; they are not ours to count.
    for old in [known for known in _steps(root) if known <= info["step"]][:-keep]:
        remove(step_folder(root, old))
    return folder


def _clean_up(root: Path) -> None:
    """Delete what a killed run left half-written, and give a `best` of an older version a folder of its own."""
    for start in ("step_", "best", "latest"):
        remove_unfinished(root, start, age=0)
    best = _pointed(root, "best")
    if best and best.name.startswith("step_"):
        _set_best(root, best)


def _choose_best(root: Path, text: str) -> None:
    """Make that checkpoint the best which has the highest score on a text, of all that are there and sound."""
    before, values = best_of(root), {}
    for folder in [before, *(step_folder(root, step) for step in _steps(root))]:
        score = _score(folder) if folder else None
        if score and score.text in (text, "") and not math.isnan(score.value):
            values[folder] = score.value
    for folder in sorted(values, key=values.get, reverse=True):  # of equal ones the first, which is the one before
        if folder == before:
            return
        if not damage(folder, PAYLOAD):
            return _set_best(root, folder)


def _set_best(root: Path, folder: Path) -> None:
    name = f"best_{folder.name[len('step_') :]}_{sha256(folder / SUMS_FILE)[:8]}"
    link_folder(folder, root / name)
    write_text(root / "best", name + "\n")
    for other in root.glob("best_*"):
        if other.name != name:
            remove(other)


def _score(folder: Path) -> Optional[Score]:
    """Return the score of a checkpoint, None if it was not evaluated or cannot be read."""
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if "score" not in info:
            return _older_score(info)
        return Score(float(info["score"]["value"]), str(info["score"]["text"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _older_score(info: Dict[str, Any]) -> Score:
    """Return the score of a checkpoint of a version that did not note it, nor on which text it was measured."""
    dev = info["dev"]
    return Score(-float(dev["perplexity"]) if "perplexity" in dev else float(dev["f1"]), "")


# --- finding ---


def best_of(root: PathLike) -> Optional[Path]:
    """Return the best checkpoint of a run, None if none was evaluated."""
    pointed = _pointed(Path(root), "best")
    if pointed:
        return pointed
    # The pointer is damaged: only a process that was killed leaves more than one of these.
    folders = [folder for folder in Path(root).glob("best_*") if FOLDERS["best"].fullmatch(folder.name)]
    return max((folder for folder in folders if _score(folder)), key=_score, default=None)


def resolve(path: PathLike) -> Path:
    """Return the checkpoint that a path stands for.

    The folder of a run stands for its best checkpoint; if none was evaluated, for its newest. Any other path stands for
    itself.
    """
    folder = Path(path)
    if (folder / INFO_FILE).exists():
        return folder
    return best_of(folder) or next(candidates(folder), folder)


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


def kind_of(info: Dict[str, Any]) -> str:
    """Return what a checkpoint is of, by its `checkpoint.json`; what tells of no other is a language model."""
    return next((kind for entry, kind in KINDS.items() if entry in info), KINDS["rows"])


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


def candidates(root: PathLike) -> Iterator[Path]:
    """Yield the checkpoint folders that a run may be resumed from: `latest` first, then the ones before it."""
    root = Path(root)
    steps = _steps(root)
    latest = _pointed(root, "latest")
    for step in reversed(steps if latest is None else [step for step in steps if step <= int(latest.name[5:])]):
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
        best = best_of(root)
        hint = f"\n--load_dir {best} goes back to the best one" if best else ""
        raise CheckpointError(f"no checkpoint in {root} can be read:\n  " + "\n  ".join(damages) + hint)
    return None, damages
