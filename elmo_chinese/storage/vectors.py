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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, NamedTuple, Tuple

from elmo_chinese import files
from elmo_chinese.command import OptionError
from elmo_chinese.text.reading import InputError

import numpy as np


class Counts(NamedTuple):
    """What comes: so many lines, together so many rows, which are words, or lines where those are pooled."""

    lines: int
    rows: int
    pooled: bool


def _write_npz(paths: List[Path], arrays: Iterable[np.ndarray], counts: Counts) -> None:
    with zipfile.ZipFile(paths[0], "w") as file:
        for number, array in enumerate(arrays):
            with file.open(f"{number}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_h5(paths: List[Path], arrays: Iterable[np.ndarray], counts: Counts) -> None:
    import h5py  # needed here alone

    with h5py.File(paths[0], "w") as file:
        for number, array in enumerate(arrays):
            file.create_dataset(str(number), data=array)


def _write_npy(paths: List[Path], arrays: Iterable[np.ndarray], counts: Counts) -> None:
    """Write one array of all words (pooled: lines), `[words, size]` or `[words, layers, size]`, and the offsets."""
    offsets = np.zeros(counts.lines + 1, np.int64)
    with open(paths[0], "wb") as offsets_file, open(paths[1], "wb") as file:
        for number, array in enumerate(arrays):
            rows = np.ascontiguousarray(array[np.newaxis] if counts.pooled else np.moveaxis(array, -2, 0))
            if not number:
                header = np.lib.format.header_data_from_array_1_0(rows)
                header["shape"] = (counts.rows, *rows.shape[1:])
                np.lib.format.write_array_header_1_0(file, header)
            file.write(rows.reshape(-1).view(np.uint8))
            offsets[number + 1] = offsets[number] + len(rows)
        np.save(offsets_file, offsets)


class Form(NamedTuple):
    """How vectors are written: the endings of the files' names, that of the vectors last, and what writes them."""

    suffixes: Tuple[str, ...]
    write: Callable[[List[Path], Iterable[np.ndarray], Counts], None]


FILES = {
    ".npz": Form((".npz",), _write_npz),
    ".npy": Form((".offsets.npy", ".npy"), _write_npy),
    ".h5": Form((".h5",), _write_h5),
}


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
    targets, form = targets_of(path), FILES[path.suffix]
    with ExitStack() as stack:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            besides = [stack.enter_context(files.writing(target)) for target in targets]
            form.write(besides, [], Counts(0, 0, False))  # whether it can be is better found out now

        def write(arrays: Iterable[np.ndarray], counts: Counts) -> None:
            with _write_errors(path):
                form.write(besides, arrays, counts)

        yield write
        with _write_errors(path):
            for target in targets[:-1]:  # never with the vectors of another text
                files.remove(Path(os.path.realpath(target)))
            stack.close()
