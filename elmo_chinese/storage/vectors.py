"""The vectors of the lines of a text in a file, whose name says how:

    vectors.npz   an array for each line, its name is the line's number, counted from 0
    vectors.h5    the same as data sets, if h5py is installed
    vectors.npy   one array of all words, line after line; beside it vectors.offsets.npy, int64 [lines + 1]:
                  where each line starts in it, and where the last one ends

An `.npz` is a ZIP file with a directory: some 0.4 KB for each line in the memory of whoever writes it, 0.6 KB of
whoever reads it. An `.npy` takes 8 bytes and can be memory-mapped, which is for texts of millions of lines.
"""

import os
import zipfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple

from elmo_chinese import files
from elmo_chinese.command import OptionError
from elmo_chinese.text.reading import InputError

import numpy as np


class Counts(NamedTuple):
    """What comes: so many lines, together so many rows, which are words, or lines where those are pooled."""

    lines: int
    rows: int
    pooled: bool


class NpzFile:
    """Writes an `.npz`, array by array."""

    suffixes, line_bytes = (".npz",), 236  # what a line takes besides its numbers

    def __init__(self, paths: List[Path], counts: Counts):
        self._file, self._count = zipfile.ZipFile(paths[0], "w"), 0

    def write(self, array: np.ndarray) -> None:
        """Append the vectors of the next line."""
        with self._file.open(f"{self._count}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, array, allow_pickle=False)
        self._count += 1

    def close(self) -> None:
        """Append the directory and close the file."""
        self._file.close()


class H5File:
    """Writes an `.h5` file, array by array, each a data set."""

    suffixes, line_bytes = (".h5",), 270

    def __init__(self, paths: List[Path], counts: Counts):
        import h5py  # needed here alone

        self._file, self._count = h5py.File(paths[0], "w"), 0

    def write(self, array: np.ndarray) -> None:
        """Append the vectors of the next line."""
        self._file.create_dataset(str(self._count), data=array)
        self._count += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NpyFile:
    """Writes one array of all words, `[words, size]` or `[words, layers, size]`; pooled, of all lines."""

    suffixes, line_bytes = (".offsets.npy", ".npy"), 8

    def __init__(self, paths: List[Path], counts: Counts):
        self._counts, self._count = counts, 0
        self._offsets = np.zeros(counts.lines + 1, np.int64)
        self._offsets_file, self._file = (open(path, "wb") for path in paths)

    def write(self, array: np.ndarray) -> None:
        """Append the vectors of the next line."""
        rows = np.ascontiguousarray(array[np.newaxis] if self._counts.pooled else np.moveaxis(array, -2, 0))
        if not self._count:
            header = np.lib.format.header_data_from_array_1_0(rows)
            header["shape"] = (self._counts.rows, *rows.shape[1:])
            np.lib.format.write_array_header_1_0(self._file, header)
        self._file.write(rows.reshape(-1).view(np.uint8))
        self._offsets[self._count + 1] = self._offsets[self._count] + len(rows)
        self._count += 1

    def close(self) -> None:
        """Write the offsets and close the files."""
        with self._file, self._offsets_file:
            np.save(self._offsets_file, self._offsets)


FILES = {".npz": NpzFile, ".npy": NpyFile, ".h5": H5File}


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says which file."""
    try:
        yield
    except ImportError:
        raise OptionError(f"--output {path}: h5py is not installed; pip install h5py, or take a name that ends in .npz")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another --output")


def targets_of(path: Path) -> List[Path]:
    """Return the files that are written for an output of this name.

    Raises:
        OptionError: another ending of the name; or what stands beside it under the other name is not of this output.
    """
    if path.suffix not in FILES:
        raise OptionError(f"--output {path}: the name must end in {', '.join(FILES)}")
    targets = [path.with_suffix(suffix) for suffix in FILES[path.suffix].suffixes]
    for target in targets:
        if target.is_dir():
            raise OptionError(f"--output {target}: is a folder; give the name of a file")
    if len(targets) > 1 and os.path.lexists(targets[0]) and not _belong_together(*targets):
        raise OptionError(f"--output {path}: {targets[0]} is there and not of {path}; move it away, or choose another")
    return targets


def _belong_together(offsets: Path, vectors: Path) -> bool:
    """Say whether one file holds where the lines of the other start."""
    try:
        starts, rows = (np.load(name, mmap_mode="r", allow_pickle=False) for name in (offsets, vectors))
        return starts.dtype == np.int64 and starts.ndim == 1 and starts[0] == 0 and starts[-1] == len(rows)
    except (OSError, ValueError, IndexError, TypeError):
        return False


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Iterable[np.ndarray], Counts], None]]:
    """Give a function that writes the vectors of all lines; they appear under their name when all went well.

    The vectors of a line are an array `[words, size]`, `[layers, words, size]`, or of these without the words.

    Raises:
        OptionError: another ending of the name, or no h5py. InputError: it cannot be written.
    """
    targets = targets_of(path)
    kind = FILES[path.suffix]
    with ExitStack() as stack:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            besides = [stack.enter_context(files.writing(target)) for target in targets]
            kind(besides, Counts(0, 0, False)).close()  # whether it can be is better found out now

        def write(arrays, counts):
            with _write_errors(path):
                file = kind(besides, counts)
            try:
                for array in arrays:
                    with _write_errors(path):
                        file.write(array)
            except BaseException:
                with suppress(OSError):  # what is to be said is said already
                    file.close()
                raise
            with _write_errors(path):
                file.close()

        yield write
        with _write_errors(path):
            for target in targets[:-1]:  # never with the vectors of another text
                files.remove(Path(os.path.realpath(target)))
            stack.close()
