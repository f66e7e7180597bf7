"""What becomes of sentences: numbered shards, a memory of what was seen, `summary.json` and `summary.png`."""

import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, List, NamedTuple

from elmo_chinese.console import say
from elmo_chinese.files import move
from elmo_chinese.text.reading import InputError

import numpy as np

PARTS = ("train", "dev")
LENGTHS = 1000  # sentences of so many words and more are counted together
WAYS = 16  # places for the fingerprints of one row of the table


class Cut(NamedTuple):
    """What becomes of a chunk."""

    documents: List[int]  # that start in it, for train and dev
    blank: int  # how many of them hold no sentence
    lines: List[str]  # sentences, words apart by blanks
    dev: np.ndarray  # 1 where a sentence goes to dev, uint8 [sentences]
    lengths: np.ndarray  # words of each sentence, int64 [sentences]
    fingerprints: np.ndarray  # of each sentence, uint64 [sentences], never 0


class ShardWriter:
    """Writes lines to numbered files of about `size` bytes; a file gets its name when it is complete.

    Args:
        folder: gets `part_00000.txt`, …; until `publish` they are `part_00000.txt.RUN.tmp`.
        size: a shard is closed after the line with which it reaches so many bytes.
        run: id of the run, 8 hex digits. count, written: where an interrupted run had got to: complete shards, and
            bytes of the next. What was written after that is taken back.

    Raises:
        InputError: the last shard of the interrupted run is gone, or has become shorter; or a shard is there that the
            run has not made.
    """

    def __init__(self, folder: Path, size: int, run: str, count: int = 0, written: int = 0):
        self.folder, self.size, self.run, self.count, self.written = folder, size, run, count, written
        folder.mkdir(parents=True, exist_ok=True)
        self._hidden = []  # numbers of the complete ones that have not got their names yet
        for path in folder.iterdir():
            found = re.fullmatch(rf"part_(\d{{5,}})\.txt(\.{run}\.tmp)?", path.name)
            number = int(found[1]) if found else 0
            if found and found[2] and number < count:
                self._hidden.append(number)
            elif found and found[2] and number > count:
                path.unlink()
            elif found and not found[2] and number >= count:
                raise InputError(f"{path} is none of the unfinished run; move it away")
        self.publish()
        last = folder / self._name(max(0, count - 1))
        self._file = self._open()
        gone = count > 0 and not last.exists()
        if gone or self._file.tell() < written:  # to be made longer would fill it with zeros
            raise InputError(
                f"{last if gone else self._file.name} of the unfinished run is gone, or was changed; delete "
                f"{folder.parent} with its hidden folder .unfinished, and start afresh"
            )
        self._file.truncate(written)

    @staticmethod
    def _name(number: int) -> str:
        return f"part_{number:05d}.txt"

    def _open(self) -> BinaryIO:
        return open(self.folder / f"{self._name(self.count)}.{self.run}.tmp", "ab")

    def add(self, lines: Iterable[str]) -> None:
        """Write lines."""
        for line in lines:
            self.written += self._file.write((line + "\n").encode("utf-8"))
            if self.written >= self.size:
                self.close()
                self._file, self.written = self._open(), 0

    def sync(self) -> None:
        """Have what was written on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """End the shard; an empty one vanishes."""
        self.sync()
        self._file.close()
        if self.written:
            self._hidden.append(self.count)
            self.count += 1
        else:
            os.unlink(self._file.name)

    def publish(self) -> None:
        """Give the complete shards their names, once the state that counts them is on the disk.

        Raises:
            InputError: somebody else has put something there.
        """
        for number in self._hidden:
            path = self.folder / self._name(number)
            if os.path.lexists(path):
                raise InputError(f"{path} is none of this run; move it away, and start the same command again")
            move(self.folder / f"{path.name}.{self.run}.tmp", path)
        self._hidden = []


class Seen:
    """Remembers sentences by fingerprints of 8 bytes, in a table that never grows.

    A fingerprint has its place in one row of 16. While the table is not more than half full, that is up to
    `size / 17` sentences, fewer than one in a thousand finds its row full; then the oldest of the row is forgotten,
    so that a repeated sentence may stay. Two sentences of one fingerprint are one in 2⁶⁴ pairs.

    Args:
        size: bytes of the table.

    Raises:
        InputError: this machine has not so much memory.
    """

    def __init__(self, size: int):
        rows = max(1, size // (8 * WAYS + 1))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("inf")
        try:
            if size > memory:  # the system would promise it, and end the process later
                raise MemoryError
            self._table = np.zeros((rows, WAYS), dtype=np.uint64)
        except (MemoryError, ValueError):
            raise InputError(
                f"--duplicates_memory: {size / 2**30:,.1f} GB are more than there are; 17 bytes a sentence do"
            )
        self._next = np.zeros(rows, dtype=np.uint8)

    def _rows(self, fingerprints: np.ndarray) -> np.ndarray:
        return (fingerprints % np.uint64(len(self._table))).astype(np.int64)

    def new(self, fingerprints: np.ndarray) -> np.ndarray:
        """Return which of some fingerprints, uint64 `[n]`, are neither known nor earlier in the array; bool `[n]`."""
        first = np.zeros(len(fingerprints), dtype=bool)
        first[np.unique(fingerprints, return_index=True)[1]] = True
        return first & ~(self._table[self._rows(fingerprints)] == fingerprints[:, None]).any(axis=1)

    def add(self, fingerprints: np.ndarray) -> None:
        """Remember fingerprints that are new; their order decides which are forgotten in a full row."""
        rows = self._rows(fingerprints)
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among those of the same row
        self._table[rows, (self._next[rows] + place) % WAYS] = fingerprints[order]
        np.add.at(self._next, rows, 1)  # runs over at 256, a multiple of 16

    def load(self, path: Path, count: int) -> None:
        """Remember the first `count` sentences of an interrupted run, from its file of fingerprints; it ends there."""
        with open(path, "ab") as file:
            file.truncate(8 * count)
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(2**23), b""):
                self.add(np.frombuffer(block, dtype="<u8"))


# --- the summary ---


def empty_counts() -> Dict[str, Any]:
    """Return the counts of a run that has just begun."""
    part = {"shards": 0, "written": 0, "documents": 0, "sentences": 0, "words": 0}
    counts = {name: dict(part) for name in PARTS}
    return {**counts, "repeated": 0, "blank_documents": 0, "longest": 0, "lengths": [0] * (LENGTHS + 1)}


def count_in(state: Dict[str, Any], cut: Cut, fresh: np.ndarray) -> None:
    """Add a chunk to the counts of a run; `fresh`, bool `[sentences]`, says which of its sentences stay."""
    for is_dev, part in enumerate(PARTS):
        chosen = fresh & (cut.dev == is_dev)
        state[part]["documents"] += cut.documents[is_dev]
        state[part]["sentences"] += int(chosen.sum())
        state[part]["words"] += int(cut.lengths[chosen].sum())
    state["repeated"] += int(len(fresh) - fresh.sum())
    state["blank_documents"] += cut.blank
    state["longest"] = max(state["longest"], int(cut.lengths[fresh].max(initial=0)))
    counted = np.bincount(np.minimum(cut.lengths[fresh], LENGTHS), minlength=LENGTHS + 1)
    state["lengths"] = (np.array(state["lengths"]) + counted).tolist()


def summarise(files: List[dict], state: Dict[str, Any]) -> Dict[str, Any]:
    """Return the counts of a run as they go to `summary.json`."""
    counts = np.array(state["lengths"])
    reached = np.cumsum(counts) / max(1, counts.sum())
    words, total = (sum(state[part][name] for part in PARTS) for name in ("words", "sentences"))
    good = [file for file in files if not file["error"]]
    return {
        "files": {
            "read": len(good),
            "bytes": sum(file["bytes"] for file in good),
            "gb18030": sum(file["encoding"] == "gb18030" for file in good),
        },
        **{part: {name: state[part][name] for name in state[part] if name != "written"} for part in PARTS},
        "words_per_sentence": {
            "mean": round(words / max(1, total), 2),
            "median": int(np.searchsorted(reached, 0.5)),
            "percentile_99": int(np.searchsorted(reached, 0.99)),
            "longest": state["longest"],
        },
        "dropped": {
            "repeated_sentences": state["repeated"],
            "documents_without_text": state["blank_documents"],
            "bad_files": [file["error"] for file in files if file["error"]],
        },
        "sentences_by_words": np.trim_zeros(counts, "b").tolist(),
    }


def plot(summary: Dict[str, Any], path: Path) -> None:
    """Draw how many sentences have how many words, and how many were kept and dropped."""
    try:
        import matplotlib  # comes with visualdl
    except ImportError:
        say(f"no {path.name}: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), gridspec_kw={"width_ratios": [3, 2]})
    counts = summary["sentences_by_words"]
    left.bar(range(len(counts)), counts, width=1)
    left.set_xlim(0, max(2, 1.5 * summary["words_per_sentence"]["percentile_99"]))
    left.set_xlabel("words per sentence")
    left.set_ylabel("sentences")
    names = ["train", "dev", "repeated"]
    values = [summary["train"]["sentences"], summary["dev"]["sentences"], summary["dropped"]["repeated_sentences"]]
    for index, value in enumerate(values):
        right.annotate(f"{value:,}", (value, index), va="center", xytext=(3, 0), textcoords="offset points")
    right.barh(names, values)
    right.set_xlim(0, 1.5 * max(values) + 1)
    right.invert_yaxis()
    right.set_xlabel("sentences")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
