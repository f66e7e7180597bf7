"""From files to documents: in any of the forms of `forms.py`, packed or not, in UTF-8, GB18030, Big5, UTF-16 or UTF-32.

Files of any size are read in blocks, and twice: once to check them, once to cut them.
"""

import codecs
import glob
import os
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from elmo_chinese.text.corpus import forms
from elmo_chinese.text.encoding import NAMES, guess_encoding
from elmo_chinese.text.reading import InputError, check_regular, reading

BLOCK = 2**20  # bytes read at once
LONGEST_LINE = 2**22  # characters; plain text without line feeds is cut there
PIECE = 2**20  # characters; a longer document is handed on in pieces


def find_texts(patterns: Sequence[str]) -> List[str]:
    """Return the files that paths, glob patterns and folders (with the folders in them) name, sorted.

    Files and folders whose names start with a dot are left out of folders. Links are followed; a file or folder that is
    reached in several ways is named once.

    Raises:
        InputError: one of them names no file, or a pipe or device; a folder cannot be read.
    """
    found: Dict[str, str] = {}
    for pattern in patterns:
        files, entered = [], set()
        for match in [pattern] if os.path.exists(pattern) else glob.glob(pattern):
            if not os.path.isdir(match):
                files.append(match)
                continue
            for folder, folders, names in os.walk(match, onerror=_stop, followlinks=True):
                if os.path.realpath(folder) in entered:
                    folders.clear()
                    continue
                entered.add(os.path.realpath(folder))
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                files += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        if not files:
            raise InputError(f"no file matches {pattern!r} (looked from {os.getcwd()})")
        for path in sorted(files):
            check_regular(path)
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _stop(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {error.strerror}")


def _blocks(path: str) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file, and nothing as the last block."""
    with reading(path) as file:
        block = b"-"
        while block:
            block = file.read(BLOCK)
            yield block


def detect_encoding(path: str) -> str:
    """Return Python's codec for a file, by its first block with more than ASCII; UTF-8 drops a byte order mark."""
    for block in _blocks(path):
        if not block.isascii() or b"\0" in block:
            return guess_encoding(block)
    return "utf-8-sig"


def _decoded(path: str, encoding: str) -> Iterator[str]:
    """Yield the text of a file in blocks.

    Raises:
        InputError: naming the first byte that is not text, counted in the unpacked file.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    for block in _blocks(path):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # The decoder had held back the start of a character, so its object starts before the block.
            place = offset + len(block) - len(error.object) + error.start
            known = f"looks like {NAMES[encoding]}, but is not from end to end"
            raise InputError(f"{path}: {known}: byte {place} is 0x{error.object[error.start]:02x}; mend or convert it")
        if "\0" in text:
            raise InputError(f"{path}: not text: it holds the character 0, after {offset:,} bytes; mend or convert it")
        offset += len(block)
        yield text


def _lines(path: str, encoding: str, longest: float) -> Iterator[str]:
    """Yield lines without their ends, \\n or \\r\\n; one of more than about `longest` characters is cut."""
    rest = ""
    for text in _decoded(path, encoding):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        yield from (line[:-1] if line.endswith("\r") else line for line in lines)
        if len(rest) > longest:
            yield rest
            rest = ""
    if rest:
        yield rest


def source(path: str, encoding: str) -> forms.Source:
    """Return what `forms` reads documents from."""
    return forms.Source(path, lambda longest: _lines(path, encoding, longest), lambda: _decoded(path, encoding))


def documents(
    path: str, encoding: str, form: str, text_field: str, bad: Optional[forms.BadRecord] = None
) -> Iterator[Tuple[bool, List[str]]]:
    """Yield the documents of a file as pairs: does a document start here, and lines of text.

    A document of more than about a million characters comes in several pieces, so that memory is bounded; only of
    JSON a whole record is held. A document of blanks there comes with no lines.

    Args:
        bad: is told of each record without a text, which is left out; None: it is an error.

    Raises:
        InputError: the file cannot be read; naming the place.
    """
    for document in forms.documents(source(path, encoding), form, text_field, LONGEST_LINE, bad or _refuse):
        starts, piece, size = True, [], 0
        for line in document:
            piece.append(line)
            size += len(line)
            if size >= PIECE:
                yield starts, piece
                starts, piece, size = False, [], 0
        if piece or starts:
            yield starts, piece


def _refuse(problem: str) -> None:
    raise InputError(f"{problem} (--on_bad_record skip leaves such records out)")


def check_file(path: str, text_field: str, skip_records: bool = False) -> dict:
    """Read a file once and return what is known of it.

    Args:
        skip_records: records without a text are left out, and counted.

    Returns:
        path, bytes (its size), changed (when, in ns), encoding, form, documents, characters, bad_records (what is
        wrong with the first of those left out, and how many there are), and error: None or what is wrong with the
        file (then nothing of it is counted).
    """
    known = {"path": path, "bytes": 0, "changed": 0, "encoding": "", "form": "plain", "documents": 0, "characters": 0}
    known.update(bad_records=[], error=None)
    problems: List[str] = []
    try:
        known.update(same_file(path), encoding=detect_encoding(path))
        known["form"] = forms.tell(source(path, known["encoding"]))
        bad = problems.append if skip_records else None
        for starts, lines in documents(path, known["encoding"], known["form"], text_field, bad):
            known["documents"] += starts
            known["characters"] += sum(map(len, lines))
        known["bad_records"] = [problems[0], len(problems)] if problems else []
    except InputError as error:
        known.update(documents=0, characters=0, error=str(error))
    return known


def same_file(path: str) -> dict:
    """Return what tells whether a file was changed: bytes and changed."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror} (looked from {os.getcwd()})")
    return {"bytes": status.st_size, "changed": status.st_mtime_ns}
