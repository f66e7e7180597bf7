"""Text in files: which files are meant, and their lines. Everything that reads a user's text comes through here.

A file may be packed with gzip, bzip2 or xz; it is told by its first bytes, or else by its name.
"""

import bz2
import contextlib
import glob
import gzip
import lzma
import os
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Sequence, Union

from elmo_chinese.command import UserError
from elmo_chinese.text.encoding import NAMES, guess_encoding

PathLike = Union[str, Path]
UNPACK = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# How a packed file begins, and its ending or, where it is not read, what unpacks it.
PACKED = {
    b"\x1f\x8b\x08": ".gz",
    **{b"BZh%d1AY&SY" % size: ".bz2" for size in range(1, 10)},
    **{b"\xfd7zXZ\0": ".xz", b"PK\3\4": "unzip", b"\x28\xb5\x2f\xfd": "zstd -d", b"\x04\x22\x4d\x18": "lz4 -d"},
    **{b"7z\xbc\xaf\x27\x1c": "7z x", b"Rar!\x1a\x07": "unrar x"},
}
TAR = slice(257, 262)  # where a tar archive says that it is one


class InputError(UserError, ValueError):
    """Something is wrong with a file the user gave; the message says which, where, and what to do."""


@contextlib.contextmanager
def reading(path: Union[PathLike, int]) -> Iterator[BinaryIO]:
    """Give a file, unpacked if it is packed, to be read in this block.

    Raises:
        InputError: no such file, one that is damaged, or packed in a way that is not read; also from within the block.
    """
    try:
        with open(path, "rb") as file:
            start = file.peek(16)
            kind = next((PACKED[begin] for begin in PACKED if start.startswith(begin)), os.path.splitext(str(path))[1])
            if kind in UNPACK:
                file = UNPACK[kind](file, "rb")
            elif kind and not kind.startswith("."):
                raise InputError(f"{path}: a packed file; unpack it first: {kind} {path} (.gz, .bz2 and .xz are read)")
            if file.peek(512)[TAR] == b"ustar":
                raise InputError(f"{path}: an archive of files; unpack it first: tar -xf {path}")
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise InputError(f"cannot read {path}: {error.strerror} (looked from {os.getcwd()})")
        raise InputError(f"{path}: a damaged packed file: {error}; get it again")


def read_lines(path: Union[PathLike, int], block_size: int = 2**23) -> Iterator[List[str]]:
    r"""Yield the lines of a UTF-8 file in blocks, without their line ends (\n or \r\n).

    A byte order mark at the start is dropped.

    Raises:
        InputError: what `reading` raises, or not UTF-8 (names line and byte).
    """
    with reading(path) as file:
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
                encoding = NAMES[guess_encoding(block)]
                raise InputError(
                    f"{path}: not UTF-8: line {line}, byte {offset + error.start} is 0x{block[error.start]:02x}; "
                    + ("mend it" if encoding == "UTF-8" else f"convert it, e.g. with iconv -f {encoding} -t UTF-8")
                )
            if offset == 0:
                text = text[1:] if text.startswith("\ufeff") else text
            line += text.count("\n")
            offset += len(block)
            lines = (text[:-1] if text.endswith("\n") else text).split("\n")
            yield [line[:-1] if line.endswith("\r") else line for line in lines] if "\r" in text else lines


def read_stdin(block_size: int = 2**23) -> Iterator[List[str]]:
    """Yield the lines of standard input like `read_lines`, which see."""
    if sys.stdin is None:
        raise InputError("standard input is closed; name a file, or give the text through a pipe")
    number = sys.stdin.fileno()
    try:
        yield from read_lines(number, block_size)
    except InputError as error:
        raise InputError(str(error).replace(str(number), "standard input", 1))


def check_regular(path: PathLike) -> None:
    """Raise `InputError` for a pipe or device: text is read more than once, and a pipe gives it only once."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is a pipe or a device, not a file; write its content to a file and give that")


def find_files(paths: Union[PathLike, Sequence[PathLike]]) -> List[Path]:
    """Return the files that a path, a glob pattern, a folder (all files in it), or a list of these names, sorted.

    What exists is taken literally, whatever signs are in its name.

    Raises:
        InputError: one of them matches no file, or matches an empty one, a pipe or a device.
    """
    found: Dict[str, None] = {}
    for pattern in [paths] if isinstance(paths, (str, Path)) else paths:
        pattern = str(pattern)
        if os.path.isdir(pattern):
            matches = glob.glob(os.path.join(glob.escape(pattern), "*"))
        elif os.path.exists(pattern):
            check_regular(pattern)
            matches = [pattern]
        else:
            matches = glob.glob(pattern)
        files = sorted(match for match in matches if os.path.isfile(match))
        if not files:
            raise InputError(f"no file matches {pattern!r} (looked from {os.getcwd()})")
        found.update(dict.fromkeys(files))
    for path in found:
        if os.path.getsize(path) == 0:
            raise InputError(f"{path} is empty")
    return [Path(path) for path in found]
