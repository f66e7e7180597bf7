"""Text in files: which files are meant, and their lines. Everything that reads a user's text comes through here."""

import bz2
import glob
import gzip
import lzma
import os
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Sequence, Union

PathLike = Union[str, Path]

# What packed files begin with.
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
UNKNOWN_PACKED = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar"}


class InputError(ValueError):
    """Something is wrong with a file the user gave; the message says which, where, and what to do."""


def open_text(path: PathLike) -> BinaryIO:
    """Open a file for reading its bytes, unpacked if it is packed by gzip, bzip2 or xz, whatever its name.

    Raises:
        InputError: it is packed in another way. OSError: as `open`.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    for mark, kind in UNKNOWN_PACKED.items():
        if start.startswith(mark):
            raise InputError(f"{path}: a {kind} archive; unpack it first (.gz, .bz2 and .xz are read as they are)")
    for mark, opener in PACKED.items():
        if start.startswith(mark):
            return opener(path, "rb")
    if str(path).endswith((".gz", ".bz2", ".xz")):
        raise InputError(f"{path}: damaged packed file: it does not begin as one; get it again")
    return open(path, "rb")


def unpacking_failed(path: PathLike, error: Exception) -> InputError:
    """Return the error of a packed file that ends early or is damaged."""
    return InputError(f"{path}: damaged packed file: {error}; get it again")


# What reading a damaged packed file raises; an OSError with a number is another failure, of the disk say.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


def read_lines(path: Union[PathLike, int], block_size: int = 2**23) -> Iterator[List[str]]:
    """Yield the lines of a UTF-8 file in blocks, without their line ends.

    A line feed ends a line, also one after a carriage return; a byte order mark at the start is dropped. The file may
    be packed, see `open_text`.

    Args:
        path: of the file, or the number of a file that is open.

    Raises:
        InputError: no such file, or not UTF-8 (names line and byte).
    """
    try:
        with open(path, "rb") if isinstance(path, int) else open_text(path) as file:
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
                text = (text[:-1] if text.endswith("\n") else text).replace("\r\n", "\n")
                yield (text[:-1] if text.endswith("\r") else text).split("\n")
    except DAMAGED as error:
        raise unpacking_failed(path, error)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error} (looked from {os.getcwd()})")


def read_stdin(block_size: int = 2**23) -> Iterator[List[str]]:
    """Yield the lines of standard input like `read_lines`, which see."""
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
