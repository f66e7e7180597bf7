"""Checkpoint folders: written whole or not at all, checked by checksum, read without executing anything.

    checkpoints/
      run.json             id of the run that this folder is of; written at its start
      step_00010000/
        model.pdparams     parameters (paddle.save)
        model.pdopt        optimizer state, by parameter (paddle.save)
        state.npz          LSTM states of every row of the global batch, and the reader's position
        vocabulary.txt     the vocabulary that the word ids mean
        checkpoint.json    id of the run, model sizes, flags, step, tokens seen, seed, versions, dev perplexity, …
        SHA256SUMS         checksums of the files above (`sha256sum -c SHA256SUMS` reads it)
      step_00010000_2/     a step that is written again, since a folder is never replaced; the first one goes afterwards
      latest               name of the folder written last
      best                 name of the folder of the best checkpoint, which stays

A run deletes step folders that carry its own id, and no others.

The random numbers of a step are a function of seed and step (`bilm.StepRandom`, `reader.py`), so those
two are the whole random state.
"""

import json
import math
import os
import re
import secrets
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.files import (
    CheckpointError,
    damage,
    discard,
    lock_folder,
    remove_unfinished,
    write_json,
    write_sums,
    write_text,
    writing,
)
from elmo_chinese.require_paddle import paddle
from elmo_chinese.storage.contents import (
    INFO_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    PAYLOAD,
    STATE_FILE,
    VOCABULARY_FILE,
    Checkpoint,
    load,
)
from elmo_chinese.text.vocabulary import note_path

import numpy as np
import paddle.distributed as dist

RUN_FILE = "run.json"
STEP_NAME = r"step_(\d{8,})(?:_\d+)?"
RUN_ID = r"[0-9a-f]{16}"

PathLike = Union[str, Path]


@contextmanager
def only_run(root: PathLike, flag: str) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it while this one lasts; the first process locks it.

    Args:
        root: the folder. flag: that which names it, for messages.

    Raises:
        CheckpointError: nothing can be written there, or another run is at work there.
    """
    if not str(root):
        raise CheckpointError(f"{flag} is empty; give the folder that the run is to be written to")
    root = Path(root)
    busy = (
        f"another run is at work in {root} (it may have outlived its terminal or run.sh; `pgrep -af train` shows it); "
        f"let it end, stop it with `kill`, or choose another {flag}"
    )
    with ExitStack() as stack:
        try:
            if dist.get_rank() == 0:
                stack.enter_context(lock_folder(root, busy))
            root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=root).close()
        except OSError as error:
            raise CheckpointError(f"cannot write to {root}: {error.strerror}; choose another {flag}")
        yield


def check_room(root: PathLike, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> None:
    """Raise `CheckpointError` if the disk has no room for one checkpoint; better now than after the first hours."""
    moments = {"SGD": 0, "Adagrad": 1, "RMSProp": 3}.get(type(optimizer).__name__, 2)
    needed = sum(4 * p.size * (1 if p.stop_gradient else 1 + moments) for p in network.parameters())
    free = shutil.disk_usage(root).free
    if needed > free:
        sizes = f"a checkpoint takes {needed / 1e9:.3f} GB, and {free / 1e9:.3f} GB are free there"
        raise CheckpointError(f"{root}: {sizes}; make room, or choose another folder")


class Score(NamedTuple):
    """By what the best checkpoint of a run is known.

    Attributes:
        value: the higher the better: F1, or minus the perplexity.
        text: checksum of the text it was measured on; scores on different texts are not compared.
    """

    value: float
    text: str


# --- what is there ---


class Saved(NamedTuple):
    """The folder of a step, and what its `checkpoint.json` says: None where it cannot be read, or is not there."""

    path: Path
    step: int
    run: Optional[str]
    score: Optional[Score]


def step_folder(root: PathLike, step: int) -> Path:
    """Return the folder of a step's checkpoint, unless the step was written again."""
    return Path(root) / f"step_{step:08d}"


def all_saved(root: PathLike) -> List[Saved]:
    """Return the step folders there, of any run, in ascending order of steps; of one step in the order of writing."""
    folders = [path for path in Path(root).glob("step_*") if re.fullmatch(STEP_NAME, path.name) and path.is_dir()]
    found = [(int(re.fullmatch(STEP_NAME, path.name)[1]), path.stat().st_mtime_ns, path) for path in folders]
    return [Saved(path, step, *_run_and_score(path)) for step, _, path in sorted(found)]


def _run_and_score(folder: Path) -> Tuple[Optional[str], Optional[Score]]:
    """Return the id of the run of a checkpoint and its score, None for what lacks or cannot be read."""
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        run, score = info.get("run"), info.get("score")
        return run, score and Score(float(score["value"]), str(score["text"]))
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None, None


def _named(root: Path, pointer: str) -> Optional[str]:
    """Return the name that `latest` or `best` holds, None if there is no such file or none of ours."""
    try:
        found = (root / pointer).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return found if re.fullmatch(STEP_NAME, found) else None


def _best(saved: Sequence[Saved], text: Optional[str], before: Optional[Path] = None) -> List[Path]:
    """Return the folders with a score on a text, the best first; of equal ones `before`, then that of fewer steps."""
    scored = [one for one in saved if one.score and one.score.text == text and not math.isnan(one.score.value)]
    return [one.path for one in sorted(scored, key=lambda one: (-one.score.value, one.path != before))]


# --- whose it is ---


def run_of(root: PathLike) -> Optional[str]:
    """Return the id of the run that a folder is of, None if no run began there.

    Raises:
        CheckpointError: `run.json` is none of ours.
    """
    return _read_run(Path(root)).get("run")


def _read_run(root: Path) -> Dict[str, Any]:
    path = root / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not re.fullmatch(RUN_ID, content["run"]) or not re.fullmatch(RUN_ID, content["from"] or content["run"]):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path} does not say which run this folder is of; move it away, or take another folder")
    return content


def goes_on_from(root: PathLike, found: Checkpoint) -> bool:
    """Say whether the run of a folder began from a checkpoint of the same run as this one."""
    return found.info.get("run") is not None and _read_run(Path(root)).get("from") == found.info["run"]


def claim(root: PathLike, found: Optional[Checkpoint]) -> str:
    """Make sure that a run may write to a folder, and note its id there; the first process writes.

    A run has the id of the checkpoint that it is resumed from where that is in this folder; what was stopped before its
    first checkpoint, that in `run.json`. Any other is new.

    Args:
        found: what it is resumed from, None if it starts afresh.

    Raises:
        CheckpointError: something that no run of ours has written is in the way.
    """
    root, before, at_home = Path(root), run_of(root), False
    for pointer in ("latest", "best"):
        path = root / pointer
        if os.path.lexists(path) and (path.is_symlink() or _named(root, pointer) is None):
            raise CheckpointError(f"{path} is in the way: it is no name of a checkpoint; move it away, to another name")
    if found:
        at_home = os.path.samefile(found.path.parent, root) and before in (None, found.info.get("run"))
    log, metrics = root / "log", root / "log" / "metrics.jsonl"
    if (log.exists() and not log.is_dir()) or (metrics.exists() and not before and not at_home):
        path = metrics if log.is_dir() else log
        raise CheckpointError(f"{path} is in the way: no run of this folder has made it; move it away")
    run = before or (found.info.get("run") if at_home else None) or secrets.token_hex(8)
    if dist.get_rank() == 0 and not before:
        write_json(root / RUN_FILE, {"run": run, "from": found.info.get("run") if found and not at_home else None})
    elif dist.get_rank() == 0:
        remove_unfinished(root, rf"{STEP_NAME}|latest|best|{re.escape(RUN_FILE)}|elmo_layers\.\w+", age=0)
    return run


# --- writing ---


def save(
    root: PathLike,
    info: Dict[str, Any],
    model: Dict[str, Any],
    optimizer: Dict[str, Any],
    state: Dict[str, np.ndarray],
    vocabulary: str,
    keep: Optional[int] = 3,
    score: Optional[Score] = None,
) -> Path:
    """Write the checkpoint of step `info["step"]`, then drop those of this run that are not wanted any more.

    Args:
        root: the folder of all checkpoints of a run, see `claim`; made if needed.
        info: goes to `checkpoint.json` as it is, with the run and the score; without "segmenter", which says how the
            text was cut, see `Vocabulary.note`: it goes beside the vocabulary.
        model, optimizer: named tensors or arrays.
        state: named arrays.
        vocabulary: text of the vocabulary file.
        keep: so many of the newest stay, besides the best one on each text; None: all.
        score: of this one, None if it was not evaluated.

    Returns:
        its folder.

    Raises:
        CheckpointError: writing failed (disk full, no permission …); what was there is intact.
    """
    root, step, run = Path(root), info["step"], run_of(root)
    folder, again = step_folder(root, step), 2
    while os.path.lexists(folder):  # is never replaced: whenever this is killed, one whole copy has its name
        folder, again = step_folder(root, step).with_name(f"step_{step:08d}_{again}"), again + 1
    note = info.get("segmenter")
    text = {**info, "run": run, "score": score and score._asdict()}
    text.pop("segmenter", None)
    text = json.dumps(text, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with writing(folder) as beside:
            beside.mkdir()
            paddle.save(model, str(beside / MODEL_FILE))
            paddle.save(optimizer, str(beside / OPTIMIZER_FILE))
            np.savez(beside / STATE_FILE, **state)
            (beside / VOCABULARY_FILE).write_bytes(vocabulary.encode("utf-8"))
            (beside / INFO_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))  # of names that are not UTF-8
            if note:
                note_path(beside / VOCABULARY_FILE).write_bytes(json.dumps(note).encode("utf-8"))
            write_sums(beside, PAYLOAD)
        own = [one for one in all_saved(root) if one.run == run]
        if score:
            _choose_best(root, own, folder, step, score.text)
        write_text(root / "latest", folder.name + "\n")  # last: a run resumes from here, and evaluates no more
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"could not write the checkpoint of step {step} to {folder}: {error}; older ones are intact"
        )
    if run:
        _prune(root, own, folder, step, keep)
    return folder


def _choose_best(root: Path, own: Sequence[Saved], written: Path, step: int, text: str) -> None:
    """Make that checkpoint the best which has the highest score on a text, of all that are sound."""
    before = best_of(root)
    again = any(one.path == before and one.step == step for one in own)  # it may have been damaged
    for folder in _best(own, text, written if again else before):
        if folder == before and _named(root, "best"):
            return
        if folder == written or not damage(folder, PAYLOAD):
            return write_text(root / "best", folder.name + "\n")


def _prune(root: Path, own: Sequence[Saved], written: Path, step: int, keep: Optional[int]) -> None:
    """Delete what is neither among the newest steps of a run nor the best on a text.

    Later steps than the written one are of a run that was taken back to an earlier step; they stay.
    """
    chosen = root / str(_named(root, "best"))
    best = {chosen}
    for text in {one.score.text for one in own if one.score}:
        best.update(_best(own, text, chosen)[:1])
    steps = sorted({one.step for one in own if one.step <= step})
    dropped = set(steps[:-keep] if keep else ())
    for one in own:
        again = one.step == step and one.path != written
        if (one.step in dropped or again) and one.path not in best and not one.path.is_symlink():
            discard(one.path)


# --- finding ---


def best_of(root: PathLike) -> Optional[Path]:
    """Return the best checkpoint of a run, None if none was evaluated.

    It is the one that `best` names; where that is not there, the best of those that are, on the text of the last.
    """
    root = Path(root)
    name = _named(root, "best")
    if name and (root / name).is_dir():
        return root / name
    scored = [one for one in _of_the_run(root) if one.score]
    return next(iter(_best(scored, scored[-1].score.text)), None) if scored else None


def _of_the_run(root: Path) -> List[Saved]:
    """Return the step folders of the run of a folder, and those that do not say of which they are.

    Raises:
        CheckpointError: there is no telling which run the folder is of.
    """
    saved, run, latest = all_saved(root), run_of(root), _named(root, "latest")
    if run is None:
        runs = {one.run for one in saved if one.run and latest in (one.path.name, None)}
        runs = runs or {one.run for one in saved if one.run}
        if len(runs) > 1:
            raise CheckpointError(
                f"{root} holds checkpoints of {len(runs)} runs, and neither {RUN_FILE} nor `latest` says which is "
                f"meant; name one of them, such as {saved[-1].path}"
            )
        run = next(iter(runs), None)
    return [one for one in saved if one.run in (run, None)]


def resolve(path: PathLike) -> Path:
    """Return the checkpoint that a path stands for.

    The folder of a run stands for its best checkpoint; if none was evaluated, for its newest. Any other path stands for
    itself.
    """
    folder = Path(path)
    if (folder / INFO_FILE).exists():
        return folder
    return best_of(folder) or next(candidates(folder), folder)


def candidates(root: PathLike) -> Iterator[Path]:
    """Yield the checkpoint folders that a run may be resumed from: `latest` first, then the ones before it."""
    root = Path(root)
    saved, latest = _of_the_run(root), _named(root, "latest")
    if latest:
        step = int(re.fullmatch(STEP_NAME, latest)[1])
        saved = [one for one in saved if one.step <= step] or saved
        saved.sort(key=lambda one: (one.step, one.path.name == latest))
    return (one.path for one in reversed(saved))


def load_newest(root: PathLike) -> Tuple[Optional[Checkpoint], List[str]]:
    """Return the newest sound checkpoint (None if there is none at all), and what is wrong with newer ones.

    Raises:
        CheckpointError: there are checkpoints, or `latest` names one, but none of them can be read.
    """
    damages: List[str] = []
    latest = _named(Path(root), "latest")
    if latest and not (Path(root) / latest).is_dir():
        damages.append(f"{Path(root) / 'latest'} names {latest}, which is not there; put it back, or delete `latest`")
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
