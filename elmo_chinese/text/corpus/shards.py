"""Where sentences go: numbered shards that appear when they are complete, and a memory of what was seen."""

import os
import re
from pathlib import Path
from typing import BinaryIO, Iterable

from elmo_chinese.files import move
from elmo_chinese.text.reading import InputError

import numpy as np

WAYS = 16  # places for the fingerprints of one row of the table


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
    """

    def __init__(self, size: int):
        rows = max(1, size // (8 * WAYS + 1))
        self._table = np.zeros((rows, WAYS), dtype=np.uint64)
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
