"""Text in files: which files are meant, and their lines. Everything that reads a user's text comes through here.

A file may be packed with gzip, bzip2 or xz; it is told by its first bytes, or else by its name. Three readers, each on
the one before: `read_lines` gives the lines as they are (vocabularies, dictionaries, JSON), `read_text` those of a text
(every sign that ends a line does, characters without width go), `read_sentences` the words of segmented sentences.
"""

import bz2
import contextlib
import glob
import gzip
import lzma
import os
import re
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Optional, Sequence, Union

from elmo_chinese.command import UserError
from elmo_chinese.text.encoding import NAMES, guess_encoding

PathLike = Union[str, Path]
BLOCK = 2**23  # bytes read at once
UNPACK = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# How a packed file begins, and its ending or, where it is not read, what unpacks it.
PACKED = {
    b"\x1f\x8b\x08": ".gz",
    **{b"BZh%d1AY&SY" % size: ".bz2" for size in range(1, 10)},
    **{b"BZh%d\x17\x72\x45\x38\x50\x90" % size: ".bz2" for size in range(1, 10)},  # with nothing in it
    **{b"\xfd7zXZ\0": ".xz", b"PK\3\4": "unzip", b"\x28\xb5\x2f\xfd": "zstd -d", b"\x04\x22\x4d\x18": "lz4 -d"},
    **{b"7z\xbc\xaf\x27\x1c": "7z x", b"Rar!\x1a\x07": "unrar x"},
}
TAR = slice(257, 262)  # where a tar archive says that it is one
# How files begin that hold no lines of text; some decode as GB18030.
BINARY = {
    **{b"PAR1": "Parquet", b"ORC": "ORC", b"Obj\x01": "Avro", b"ARROW1": "Arrow", b"\x89HDF\r\n": "HDF5"},
    **{b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "OLE (Thumbs.db, .doc, .xls)", b"%PDF-": "PDF", b"{\\rtf": "RTF"},
    **{b"SQLite format 3\0": "SQLite", b"\x93NUMPY": "NumPy", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"},
    **{b"GIF8": "GIF", b"\x7fELF": "ELF", b"RIFF": "RIFF"},
}
CONTROLS = re.compile("[\x00-\x06\x0e-\x19\x7f]")  # characters that no text has many of
LOOKED_AT = 2**16  # characters that tell whether it is text, and in which form
# What Spark and Hive put beside the parts of an output.
NO_PART = re.compile(r"\..*|_(SUCCESS|temporary|metadata|common_metadata|(committed|started)_\d+)")
SMALL = 512  # bytes; a packed file of more has something in it

# Characters without width: soft hyphen, joiners, marks of direction, byte order marks within a text, variants of signs.
INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)
LINE_ENDS = ("\r\n", "\r", "\x85", "\u2028", "\u2029")  # besides \n
# Forms of text that are not one sentence a line, by how they begin.
FORMS = {
    "CoNLL-U": re.compile(r"(#.*\n)*\d+(-\d+)?(\t[^\t\n]+){9}(\n|$)"),
    "JSON": re.compile(r'\[?\s*\{\s*"[^"\s][^"\n]*"\s*:'),
    "markup": re.compile(r"<(\?xml|!doctype|html|mediawiki|doc)\b", re.IGNORECASE),
}
TABLE = re.compile(r"\.[ct]sv(\.\w+)?$")
NUMBERED = "numbered lines (Leipzig's form)"


class InputError(UserError, ValueError):
    """Something is wrong with a file the user gave; the message says which, where, and what to do."""


# --- which files ---


def find_files(paths: Union[PathLike, Sequence[PathLike]]) -> List[Path]:
    """Return the files that a path, a glob pattern, a folder, or a list of these names, sorted.

    What exists is taken literally, whatever signs are in its name. Of a folder these are all files in it and in the
    folders in it, without those whose names start with a dot or are Spark's own (`_SUCCESS`). Links are followed; a
    file that is reached in several ways is named once. Empty files, packed or not, are left out.

    Raises:
        InputError: one of them names no file, or a pipe or device; a folder cannot be read; all are empty.
    """
    found: Dict[str, str] = {}
    for pattern in [paths] if isinstance(paths, (str, Path)) else paths:
        pattern, files = str(pattern), []
        for match in [pattern] if os.path.lexists(pattern) else glob.glob(pattern):
            files += _files_of(match) if os.path.isdir(match) else [match]
        if not files:
            raise InputError(f"no file matches {pattern!r} (looked from {os.getcwd()})")
        for path in sorted(files):
            check_regular(path)
            found.setdefault(os.path.realpath(path), path)
    full = [Path(path) for path in found.values() if not _is_empty(path)]
    if not full:
        more = f", and so are {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(f"{next(iter(found.values()))} is empty{more}")
    return full


def _files_of(top: str) -> Iterator[str]:
    """Yield the files of a folder and of those in it, each folder once."""
    entered = set()
    for folder, folders, names in os.walk(top, onerror=_stop, followlinks=True):
        if os.path.realpath(folder) in entered:
            folders.clear()
            continue
        entered.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not NO_PART.fullmatch(name))
        yield from (os.path.join(folder, name) for name in names if not NO_PART.fullmatch(name))


def _stop(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {error.strerror}")


def _is_empty(path: str) -> bool:
    """Say whether there is nothing in a file; one that cannot be read is none, so that reading it fails by name."""
    try:
        size = os.path.getsize(path)
        if 0 < size <= SMALL:
            with reading(path) as file:
                return not file.read(1)
        return size == 0
    except (OSError, InputError):
        return False


def check_regular(path: PathLike) -> None:
    """Raise `InputError` for a pipe or device: text is read more than once, and a pipe gives it only once."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is a pipe or a device, not a file; write its content to a file and give that")


# --- what is in them ---


@contextlib.contextmanager
def reading(path: Union[PathLike, int]) -> Iterator[BinaryIO]:
    """Give a file, unpacked if it is packed, to be read in this block.

    Raises:
        InputError: no such file, one that is damaged, packed in a way that is not read, or of a form that is no text;
            also from within the block.
    """
    try:
        with open(path, "rb") as file:
            start = file.peek(16)
            kind = next((PACKED[begin] for begin in PACKED if start.startswith(begin)), os.path.splitext(str(path))[1])
            if kind in UNPACK:
                file = UNPACK[kind](file, "rb")
            elif kind and not kind.startswith("."):
                raise InputError(f"{path}: a packed file; unpack it first: {kind} {path} (.gz, .bz2 and .xz are read)")
            start = file.peek(512)
            if start[TAR] == b"ustar":
                raise InputError(f"{path}: an archive of files; unpack it first: tar -xf {path}")
            binary = next((BINARY[begin] for begin in BINARY if start.startswith(begin)), None)
            if binary:
                raise InputError(f"{path}: {binary}, no text; write the text in it to a file of its own, as UTF-8")
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise InputError(f"cannot read {path}: {error.strerror} (looked from {os.getcwd()})")
        raise InputError(f"{path}: a damaged packed file: {error}; get it again")


def check_characters(path: Union[PathLike, int], text: str) -> None:
    """Raise `InputError` if more than one in a hundred of a text's first characters are control characters."""
    start = text[:LOOKED_AT]
    controls = len(CONTROLS.findall(start))
    if 100 * controls > len(start):
        raise InputError(f"{path}: no text: {controls} of its first {len(start)} characters are control characters")


def _decoded(path: Union[PathLike, int], block_size: int) -> Iterator[str]:
    r"""Yield a UTF-8 file in blocks that end where lines do, with \n; a byte order mark at the start is dropped.

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
                codec = guess_encoding(block)
                name = NAMES[codec]
                check_characters(path, block.decode(codec, "replace"))
                raise InputError(
                    f"{path}: not UTF-8: line {line}, byte {offset + error.start} is 0x{block[error.start]:02x}; "
                    + ("mend it" if name == "UTF-8" else f"convert it, e.g. with iconv -f {name} -t UTF-8")
                )
            line += text.count("\n")
            yield text[1:] if offset == 0 and text.startswith("\ufeff") else text
            offset += len(block)


def _split(text: str) -> List[str]:
    return (text[:-1] if text.endswith("\n") else text).split("\n")


def read_lines(path: Union[PathLike, int], block_size: int = BLOCK) -> Iterator[List[str]]:
    r"""Yield the lines of a UTF-8 file in blocks, without their line ends (\n or \r\n).

    A byte order mark at the start is dropped.

    Raises:
        InputError: what `reading` raises, or not UTF-8 (names line and byte).
    """
    for text in _decoded(path, block_size):
        yield [line[:-1] if line.endswith("\r") else line for line in _split(text)] if "\r" in text else _split(text)


def split_lines(text: str) -> List[str]:
    r"""Return the lines of a text without the characters that have no width.

    A line ends with \n, \r, \r\n, U+0085, U+2028 or U+2029; a last one without an end is one, too.
    """
    for end in LINE_ENDS:
        if end in text:
            text = text.replace(end, "\n")
    return _split(INVISIBLE.sub("", text))


def read_text(path: Union[PathLike, int], block_size: int = BLOCK) -> Iterator[List[str]]:
    """Yield the lines of a UTF-8 text in blocks, see `split_lines`; raises what `read_lines` raises."""
    return map(split_lines, _decoded(path, block_size))


def read_sentences(path: PathLike, block_size: int = BLOCK) -> Iterator[List[List[str]]]:
    """Yield segmented text in blocks, the words of each line, see `words_of`: one sentence a line.

    Raises:
        InputError: what `read_lines` raises; the text has another form.
    """
    checked = False
    for lines in read_text(path, block_size):
        checked = checked or check_sentences(path, lines)
        yield list(map(words_of, lines))


def check_sentences(path: PathLike, lines: List[str]) -> bool:
    """Return True; raise `InputError` if the first lines of a file are not segmented sentences, but another form."""
    form = "a table" if TABLE.search(str(path)) else form_of("\n".join(lines[:64])[:LOOKED_AT])
    if form:
        raise InputError(
            f"{path}: {form}, and one sentence a line is expected, its words apart by blanks; a corpus is made by: "
            f"python preprocess.py sentences --input {path} --output FOLDER"
        )
    return True


def words_of(line: str) -> List[str]:
    """Return the words of a segmented sentence, apart by any white space.

    `<S>` at its start and `</S>` at its end are left out: they are put around every sentence later. Within it they
    stay words, as in the original.
    """
    words = line.split()
    return words[1:-1] if words[:1] == ["<S>"] and words[-1] == "</S>" else words


def form_of(start: str) -> Optional[str]:
    """Return the form that a text has by its first lines, `NUMBERED` or a name of `FORMS`; None: lines of text."""
    start = start.lstrip("\ufeff \t\r\n")
    rows = [line.split("\t") for line in start.split("\n")[:20] if line]
    if len(rows) > 1 and all(len(row) == 2 and row[0].isdecimal() for row in rows):
        numbers = [int(number) for number, _ in rows]
        if numbers == sorted(set(numbers)):
            return NUMBERED
    return next((name for name in FORMS if FORMS[name].match(start)), None)


def read_stdin(block_size: int = BLOCK) -> Iterator[List[str]]:
    """Yield the lines of standard input like `read_text`, which see."""
    if sys.stdin is None:
        raise InputError("standard input is closed; name a file, or give the text through a pipe")
    number = sys.stdin.fileno()
    try:
        yield from read_text(number, block_size)
    except InputError as error:
        raise InputError(str(error).replace(str(number), "standard input", 1))
