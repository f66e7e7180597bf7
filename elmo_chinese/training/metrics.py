"""Where the figures of a run go: `metrics.jsonl`, VisualDL, and the terminal."""

import collections
import json
import math
import os
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

from elmo_chinese.console import duration, on_terminal, say, show_progress
from elmo_chinese.files import CheckpointError, cache_folder, can_be_written, remove, write_text
from elmo_chinese.text.vocabulary import Vocabulary

import paddle

# What becomes a VisualDL curve, with its tag; a record has those of its kind.
CURVES = {
    "train": ("loss", "sampled_loss", "perplexity", "grad_norm", "cells_at_clip", "learning_rate", "tokens_per_second"),
    "dev": ("perplexity", "perplexity_forward", "perplexity_backward", "zero_state_ratio"),
    "epoch": None,  # all of them: a task has figures of its own
}
NO_CURVES = ("kind", "step", "time", "epoch")  # of a record: what and where it is


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says where and what to do."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; make room there, then resume with --load_dir auto"
        )


@contextmanager
def _home_for_visualdl() -> Iterator[None]:
    """Give VisualDL, which makes ~/.visualdl when it is imported, a home where the user has none (in containers)."""
    if can_be_written(Path(os.path.expanduser("~"), ".visualdl")):
        yield
        return
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(cache_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before


def _shown(value: Any) -> Any:
    """Return a flag as VisualDL can show it: it makes 1 of True, and has 64 bits for an int."""
    if type(value) is bool:
        return str(value).lower()
    return float(value) if type(value) is int and value >= 2**63 else value


class MetricsLog:
    """Appends records to `metrics.jsonl` and the same figures to VisualDL.

    Opened at step k, it first forgets what an interrupted run wrote after k, so that the curves have
    neither a gap nor a step twice. `metrics.jsonl` leads; the VisualDL file is made from it.

    Args:
        folder: holds `metrics.jsonl` and VisualDL's `vdlrecords.RUN.log`, both of this run (`checkpoint.claim`).
        run: its id.
        step: the step the run starts from; 0 starts afresh.
        hparams: what VisualDL's hyper-parameter page compares this run by; None leaves a value out.
        compared: the tags of the curves whose last values stand beside them there, such as "dev/perplexity".

    Raises:
        CheckpointError: `metrics.jsonl` is damaged, or cannot be written.
    """

    def __init__(
        self,
        folder: Union[str, Path],
        run: str,
        step: int,
        hparams: Optional[Dict[str, Any]] = None,
        compared: Sequence[str] = (),
    ):
        self.folder = Path(folder)
        path = self.path = self.folder / "metrics.jsonl"
        with _home_for_visualdl():
            from visualdl import LogWriter  # slow to import, and only runs that log need it

        class Writer(LogWriter):
            @property
            def file_name(self):  # VisualDL hashes it, and what is not UTF-8 would stop it
                return os.fsencode(super().file_name).decode("utf-8", "replace")

        with _writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [record for record in read_metrics(path) if record["step"] <= step] if path.exists() else []
            write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
            curves = self.folder / f"vdlrecords.{run}.log"
            remove(curves)
            self._file = open(path, "ab", buffering=0)  # what a full disk refuses must not be tried again at the end
            self._writer = Writer(logdir=str(self.folder), file_name=curves.name)
        if hparams:
            self._writer.add_hparams({name: _shown(value) for name, value in hparams.items()}, list(compared))
        for record in kept:
            self._plot(record)

    def write(self, kind: str, step: int, figures: Dict[str, Any]) -> None:
        """Record the figures of one step; `kind` is "train" or "dev"."""
        record = {"kind": kind, "step": step, "time": time.time(), **figures}
        rest = (json.dumps(record) + "\n").encode("utf-8")
        with _writing(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._plot(record)

    def write_vectors(self, vocabulary: Vocabulary, vectors: paddle.Tensor, count: int) -> None:
        """Give VisualDL's embedding projector the most frequent words, which stand first; call this once.

        Args:
            vectors: of all words, `[words, size]`. count: how many words are shown, besides <S>, </S> and <UNK>.
        """
        specials = (vocabulary.start, vocabulary.end, vocabulary.unknown)
        ids = [number for number in range(vocabulary.size) if number not in specials][:count]
        self._writer.add_embeddings(tag="word_vectors", mat=vectors.numpy()[ids], metadata=vocabulary.decode(ids))

    def sync(self) -> None:
        """Have the records on the disk: a checkpoint that stands there must not be ahead of them."""
        with _writing(self.path):
            os.fsync(self._file.fileno())

    def _plot(self, record: Dict[str, Any]) -> None:
        for name in CURVES[record["kind"]] or [name for name in record if name not in NO_CURVES]:
            if name in record:
                tag = f"{record['kind']}/{name}"
                self._writer.add_scalar(
                    tag=tag, value=record[name], step=record["step"], walltime=round(1000 * record["time"])
                )

    def close(self) -> None:
        """Finish both files."""
        self._file.close()
        self._writer.close()


def read_metrics(path: Union[str, Path]) -> List[Dict[str, Any]]:
    """Return the records of a `metrics.jsonl`; a last line that a kill cut short is left out.

    Raises:
        CheckpointError: naming the line that is no record.
    """
    records = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line.decode("utf-8"))
            if record["kind"] not in CURVES or type(record["step"]) is not int:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CheckpointError(
                f"{path}: line {number} is damaged; delete this line, or move the file away: checkpoints do not need it"
            )
        records.append(record)
    return records


class StepClock:
    """Measures training steps (`with clock:` around each) and nothing between them; `words` counts what they had."""

    def __init__(self):
        self.seconds = self.steps = self.words = 0
        self._logged = (0, 0)
        self._last = collections.deque(maxlen=100)

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *exception):
        self._last.append(time.perf_counter() - self._start)
        self.seconds += self._last[-1]
        self.steps += 1

    def words_per_second(self) -> float:
        """Return the speed since this was last asked for."""
        seconds, words = self.seconds - self._logged[0], self.words - self._logged[1]
        self._logged = (self.seconds, self.words)
        return words / seconds

    def usual_seconds(self) -> float:
        """Return the median of the last steps, 0 before the first one."""
        return statistics.median(list(self._last) or [0.0])

    def left(self, steps: int) -> float:
        """Return the seconds that so many more steps will take."""
        return steps * self.seconds / self.steps


def perplexity(nats):
    """Return exp of a mean loss; infinite where that is beyond a float, NaN of NaN."""
    return math.inf if nats >= 700 else math.exp(nats)


def describe(dev):
    """Return the figures of an evaluation as text."""
    return (
        f"perplexity {dev['perplexity']:.2f} (forward {dev['perplexity_forward']:.2f}, "
        f"backward {dev['perplexity_backward']:.2f}) over {dev['tokens']} words, {dev['unknown_tokens']} of them <UNK>"
    )


def report_step(step, total_steps, figures, left):
    """Show one line of figures: redrawn on a terminal, printed elsewhere."""
    name = "sampled_loss" if "sampled_loss" in figures else "loss"
    text = f"step {step}/{total_steps}  epoch {figures['epoch']:.2f}  {name} {figures[name]:.4f}"
    if "perplexity" in figures:
        text += f"  perplexity {figures['perplexity']:.1f}"
    text += (
        f"  grad_norm {figures['grad_norm']:.2f}  lr {figures['learning_rate']:g}  "
        f"{figures['tokens_per_second']:.0f} tokens/s  left {duration(left)}"
    )
    if "cells_at_clip" in figures:
        text += f"  cells_at_clip {figures['cells_at_clip']:.2f}"
    if on_terminal():
        show_progress(step, total_steps, text)
    else:
        say(text)
