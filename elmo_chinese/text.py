"""Text in files: which files are meant, and their lines. Everything that reads a user's text comes through here."""

import glob
import os
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Union

PathLike = Union[str, Path]


class InputError(ValueError):
    """Something is wrong with a file the user gave; the message says which, where, and what to do."""


def read_lines(path: Union[PathLike, int], block_size: int = 2**23) -> Iterator[List[str]]:
    """Yield the lines of a UTF-8 file in blocks, without their line ends.

    Only a line feed ends a line; a byte order mark at the start is dropped.

    Raises:
        InputError: no such file, or not UTF-8 (names line and byte).
    """
    try:
        with open(path, "rb") as file:
            line, offset = 1, 0
            while True:
                block = file.read(block_size)
                block += file.readline()
                if not block:
                    return
                try:
                    text = block.decode("utf-8")
                except UnicodeDecodeError as error:
                    line += block.count(b"\n", 0, error.start)
                    raise InputError(
                        f"{path}: not UTF-8: line {line}, byte {offset + error.start} is 0x{block[error.start]:02x}; "
                        "convert it, e.g. with iconv -f GB18030 -t UTF-8"
                    )
                if offset == 0:
                    text = text[1:] if text.startswith("\ufeff") else text
                line += text.count("\n")
                offset += len(block)
                yield (text[:-1] if text.endswith("\n") else text).split("\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror} (looked from {os.getcwd()})")


def read_stdin(block_size: int = 2**23) -> Iterator[List[str]]:
    """Yield the lines of standard input like `read_lines`, which see."""
    number = sys.stdin.fileno()
    try:
        yield from read_lines(number, block_size)
    except InputError as error:
        raise InputError(str(error).replace(str(number), "standard input", 1))


def find_files(paths: Union[PathLike, Sequence[PathLike]]) -> List[Path]:
    """Return the files that a glob pattern, a folder (all files in it), or a list of these names, sorted.

    Raises:
        InputError: one of them matches no file, or matches an empty one.
    """
    found: Dict[str, None] = {}
    for pattern in [paths] if isinstance(paths, (str, Path)) else paths:
        pattern = str(pattern)
        matches = glob.glob(os.path.join(glob.escape(pattern), "*") if os.path.isdir(pattern) else pattern)
        files = sorted(match for match in matches if os.path.isfile(match))
        if not files:
            raise InputError(f"no file matches {pattern!r} (looked from {os.getcwd()})")
        found.update(dict.fromkeys(files))
    for path in found:
        if os.path.getsize(path) == 0:
            raise InputError(f"{path} is empty")
    return [Path(path) for path in found]
