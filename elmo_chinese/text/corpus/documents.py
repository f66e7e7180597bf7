"""From files to documents: read in any of the forms of `forms.py`, checked, drawn for train or dev, in chunks.

Files of any size are read in blocks, and twice: once to check them, once to cut them.
"""

import contextlib
import functools
import hashlib
import os
import re
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from elmo_chinese.console import Progress
from elmo_chinese.text.corpus import forms
from elmo_chinese.text.reading import InputError, PathLike
from elmo_chinese.text.workers import in_order

PIECE = 2**20  # characters; a longer document is handed on in pieces
MARKS = re.compile(r"\s*<S>\s+(.*)</S>\s*")  # of a sentence that was segmented already
FEW = 10  # where dev would get fewer documents, it is drawn in blocks of the longer ones
DEV_BLOCK = 1000  # characters
CHUNK = 2**16  # characters handed to a worker at once
Document = Tuple[bool, bool, str, List[str]]  # starts here (or goes on), is for dev, form of the file, lines


def documents(
    source: forms.Source, form: str, text_field: str, bad: Optional[forms.BadRecord] = None
) -> Iterator[Tuple[bool, List[str]]]:
    """Yield the documents of a file as pairs: does a document start here, and lines of text.

    A document of more than about a million characters comes in several pieces, so that memory is bounded; only of
    JSON and tables a whole record is held. A document of blanks there comes with no lines.

    Args:
        form: as `forms.tell` returned it. text_field: what holds the text, for JSON and tables.
        bad: is told of each record without a text, which is left out; None: it is an error.

    Raises:
        InputError: the file cannot be read; naming the place.
    """
    for document in forms.READERS[form](source, text_field, bad or _refuse):
        starts, piece, size = True, [], 0
        for line in document:
            piece.append(MARKS.sub(r"\1", line) if "S>" in line else line)
            size += len(line)
            if size >= PIECE:
                yield starts, piece
                starts, piece, size = False, [], 0
        if piece or starts:
            yield starts, piece


def _refuse(problem: str) -> None:
    raise InputError(f"{problem} (--on_bad_record skip leaves such records out)")


# --- the check before ---


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
        known.update(same_file(path))
        source = forms.open_source(path)
        known.update(encoding=source.encoding, form=forms.tell(source, text_field))
        for starts, lines in documents(source, known["form"], text_field, problems.append if skip_records else None):
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


def check_files(
    paths: Sequence[PathLike], text_field: str, skip_files: bool, skip_records: bool, workers: int
) -> List[dict]:
    """Read every file once; return `check_file` of each.

    Raises:
        InputError: one cannot be read, and `skip_files` is False; there is no text at all.
    """
    names = [(str(path), str(path)) for path in paths]
    progress, files = Progress(len(names), "files checked"), []
    check = functools.partial(check_file, text_field=text_field, skip_records=skip_records)
    with contextlib.closing(in_order(check, names, workers)) as checked:
        for _, file in checked:
            if file["error"] and not skip_files:
                raise InputError(f"{file['error']} (--on_bad_file skip leaves the whole file out)")
            files.append(file)
            progress.add(1)
    if not any(file["documents"] for file in files):
        raise InputError(f"no text in the {len(files)} files of --input")
    return files


# --- train or dev ---


def draw_dev(
    pieces: Iterable[Tuple[bool, List[str]]], dev_fraction: float, longest: float
) -> Iterator[Tuple[bool, bool, List[str]]]:
    """Yield what `documents` yields, each with whether it goes to dev: `(starts here, is for dev, lines)`.

    A document goes to dev or to train as a whole, by a hash of its text (of its first piece, if it comes in several).
    One of more than `longest` characters does so in blocks of consecutive lines of that length: of 1 / dev_fraction
    blocks one goes to dev, the hash says which.
    """
    drawn = share = size = 0
    for starts, piece in pieces:
        if starts:
            digest = hashlib.sha256("\n".join(piece).encode("utf-8")).digest()
            drawn, share, size = int.from_bytes(digest[:8], "big"), int(dev_fraction * 2**64), 0
        block: List[str] = []
        for line in piece:
            if size >= longest:
                if block:
                    yield starts, drawn < share, block
                starts, block, size, drawn = False, [], 0, (drawn - share) % 2**64
            block.append(line)
            size += len(line)
        yield starts, drawn < share, block


def longest_whole(documents: int, dev_fraction: float) -> float:
    """Return how long a document of a corpus may be that goes to dev or to train as a whole, in characters."""
    return DEV_BLOCK if documents * dev_fraction < FEW else float("inf")


# --- what is handed to the workers ---


def chunks(
    files: List[dict], text_field: str, dev_fraction: float, position: Tuple[int, int]
) -> Iterator[Tuple[Tuple[Tuple[int, int], int], List[Document]]]:
    """Yield documents in chunks, each with where it ends and how many characters it has.

    An end is a position in the input: a file's number, and how many pieces of that file are done.

    Args:
        position: where to start; the chunks are the same as those of a run from the start.

    Raises:
        InputError: a file is not what it was when it was checked.
    """
    chunk: List[Document] = []
    size, longest = 0, longest_whole(sum(file["documents"] for file in files), dev_fraction)
    for number in range(position[0], len(files)):
        file = files[number]
        if file["error"]:
            continue
        now = same_file(file["path"])
        if now != {name: file[name] for name in now}:
            raise InputError(
                f"{file['path']} has changed since this run was started; delete the output folder and start afresh"
            )
        left_out: List[str] = []  # the check has reported them, or ended the run
        read = documents(forms.Source(file["path"], file["encoding"]), file["form"], text_field, left_out.append)
        for pieces, (starts, is_dev, lines) in enumerate(draw_dev(read, dev_fraction, longest), start=1):
            if number == position[0] and pieces <= position[1]:
                continue
            chunk.append((starts, is_dev, file["form"], lines))
            size += sum(map(len, lines))
            if size >= CHUNK or len(chunk) == CHUNK:
                yield ((number, pieces), size), chunk
                chunk, size = [], 0
    if chunk:
        yield ((len(files), 0), size), chunk
