"""From files to documents: plain text or .jsonl, packed (.gz) or not, in UTF-8 or GB18030.

In plain text a blank line separates documents; in .jsonl each line is one. Files of any size are read in blocks.
"""

import codecs
import glob
import gzip
import hashlib
import itertools
import json
import os
import zlib
from pathlib import Path
from typing import Iterable, Iterator, List, Sequence, Tuple

from elmo_chinese.text import InputError

BLOCK = 2**20  # bytes read at once
LONGEST_LINE = 2**22  # characters; plain text without line feeds is cut there
PIECE = 2**20  # characters; a longer document is handed on in pieces


def find_texts(patterns: Sequence[str]) -> List[str]:
    """Return the files that paths, glob patterns and folders (with the folders in them) name, sorted.

    Files and folders whose names start with a dot are left out of folders.

    Raises:
        InputError: one of them names no file.
    """
    found = {}
    for pattern in patterns:
        files = []
        for match in [pattern] if os.path.exists(pattern) else glob.glob(pattern):
            if not os.path.isdir(match):
                files.append(match)
            for folder, folders, names in os.walk(match):
                folders[:] = [name for name in folders if not name.startswith(".")]
                files += [os.path.join(folder, name) for name in names if not name.startswith(".")]
        if not files:
            raise InputError(f"no file matches {pattern!r} (looked from {os.getcwd()})")
        found.update(dict.fromkeys(sorted(files)))
    return list(found)


def _open(path: str):
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _blocks(path: str) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file, and nothing as the last block."""
    try:
        with _open(path) as file:
            block = b"-"
            while block:
                block = file.read(BLOCK)
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip file: {error}; get it again")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror} (looked from {os.getcwd()})")


def detect_encoding(path: str) -> str:
    """Return "utf-8-sig" (a byte order mark is dropped) or "gb18030", by the first block with more than ASCII."""
    for block in _blocks(path):
        if not block.isascii():
            try:
                codecs.getincrementaldecoder("utf-8-sig")().decode(block)
            except UnicodeDecodeError:
                # Damaged UTF-8 still decodes but for a few bytes; of GB18030 little does.
                lost = len(block) - len(block.decode("utf-8", "ignore").encode("utf-8"))
                if 4 * lost > len(block.translate(None, bytes(range(128)))):
                    return "gb18030"
            break
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
            known = "neither UTF-8 nor GB18030" if encoding == "gb18030" else "not UTF-8 from end to end"
            raise InputError(f"{path}: {known}: byte {place} is 0x{error.object[error.start]:02x}; mend or convert it")
        if b"\0" in block:
            raise InputError(f"{path}: not text: byte {offset + block.index(0)} is 0x00 (UTF-16? convert it to UTF-8)")
        offset += len(block)
        yield text


def _lines(path: str, encoding: str, longest: float) -> Iterator[str]:
    """Yield lines without their line feeds; one of more than about `longest` characters is cut."""
    rest = ""
    for text in _decoded(path, encoding):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        yield from lines
        if len(rest) > longest:
            yield rest
            rest = ""
    if rest:
        yield rest


def _plain(path: str, encoding: str) -> Iterator[Iterable[str]]:
    for blank, document in itertools.groupby(_lines(path, encoding, LONGEST_LINE), key=lambda line: not line.strip()):
        if not blank:
            yield document


def _jsonl(path: str, encoding: str, text_field: str) -> Iterator[Iterable[str]]:
    for number, line in enumerate(_lines(path, encoding, float("inf")), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not JSON: {error}")
        if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
            found = ", ".join(map(repr, list(record)[:8])) if isinstance(record, dict) else "no object"
            raise InputError(
                f"{path}: line {number} has no text {text_field!r} (found {found}); name it by --text_field"
            )
        try:
            record[text_field].encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: line {number}: {text_field!r} holds half a character: {error.reason}")
        yield [part for part in record[text_field].split("\n") if part.strip()]


def documents(path: str, encoding: str, text_field: str) -> Iterator[Tuple[bool, List[str]]]:
    """Yield the documents of a file as pairs: does a document start here, and lines of text.

    A document of more than about a million characters comes in several pieces, so that memory is bounded; only for
    .jsonl is a whole line held. A document of blanks in .jsonl comes with no lines.

    Raises:
        InputError: the file cannot be read; naming the place.
    """
    jsonl = path.endswith((".jsonl", ".jsonl.gz"))
    for document in _jsonl(path, encoding, text_field) if jsonl else _plain(path, encoding):
        starts, piece, size = True, [], 0
        for line in document:
            piece.append(line)
            size += len(line)
            if size >= PIECE:
                yield starts, piece
                starts, piece, size = False, [], 0
        if piece or starts:
            yield starts, piece


def is_held_out(lines: Iterable[str], dev_fraction: float) -> bool:
    """Say whether a document goes to dev, from its text alone (its first piece, if it comes in several)."""
    digest = hashlib.sha256("\n".join(lines).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < dev_fraction * 2**64


def check_file(path: str, text_field: str) -> dict:
    """Read a file once and return what is known of it.

    Returns:
        path, bytes (its size), changed (when, in ns), encoding, documents, characters, and error: None or what is wrong
        with it (then nothing of it is counted).
    """
    known = {"path": path, "bytes": 0, "changed": 0, "encoding": "", "documents": 0, "characters": 0, "error": None}
    try:
        known.update(same_file(path), encoding=detect_encoding(path))
        for starts, lines in documents(path, known["encoding"], text_field):
            known["documents"] += starts
            known["characters"] += sum(map(len, lines))
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
