"""The forms in which documents come, told by what is in a file: plain text, JSON, what WikiExtractor writes.

Each form is a function of the lines or blocks of a file that yields, for each document, its lines of text.
"""

import itertools
import json
import re
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple

from elmo_chinese.text import InputError

LOOKED_AT = 2**16  # characters of a file that tell its form
DOC = re.compile(r"<doc( [^>]*)?>\s*")
Documents = Iterator[Iterable[str]]
BadRecord = Callable[[str], None]  # is told what is wrong with a record; may raise


class Source(NamedTuple):
    """A file to read documents from: its name for messages, and what gives its lines and its text in blocks."""

    path: str
    lines: Callable[[float], Iterator[str]]  # of at most about so many characters, without their ends
    blocks: Callable[[], Iterator[str]]


def plain(source: Source, longest: int) -> Documents:
    """Text in which blank lines separate documents; a line is cut after about `longest` characters."""
    for blank, document in itertools.groupby(source.lines(longest), key=lambda line: not line.strip()):
        if not blank:
            yield document


def wiki(source: Source, longest: int) -> Documents:
    """What WikiExtractor writes: a document between `<doc …>` and `</doc>`."""
    document, begun, number = None, 0, 0
    for number, line in enumerate(source.lines(longest), start=1):
        if DOC.fullmatch(line):
            if document is not None:
                raise InputError(f"{source.path}: line {number}: <doc …> before the </doc> of line {begun}'s")
            document, begun = [], number
        elif document is None:
            if line.strip():
                raise InputError(f"{source.path}: line {number}: text outside of <doc …> and </doc>: {line[:60]!r}")
        elif line.strip() == "</doc>":
            yield document
            document = None
        elif line.strip():
            document.append(line)
    if document is not None:
        raise InputError(f"{source.path}: the <doc …> of line {begun} is not closed by line {number}; is the file cut?")


def json_lines(source: Source, field: str, bad: BadRecord) -> Documents:
    """One JSON object a line."""
    for number, line in enumerate(source.lines(float("inf")), start=1):
        if not line.strip():
            continue
        where = f"{source.path}: line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad(f"{where} is not JSON: {error}")
            continue
        yield from _text_of(record, field, where, bad)


def json_array(source: Source, field: str, bad: BadRecord) -> Documents:
    """One JSON array of objects, read bit by bit."""
    decode, blocks, count = json.JSONDecoder().raw_decode, source.blocks(), 0
    text = next(blocks, "")
    place = text.index("[") + 1
    while True:
        while text[place : place + 1] and text[place] in " \t\r\n,":
            place += 1
        if text[place : place + 1] == "]":
            return
        try:
            record, place = decode(text, place)
        except (ValueError, RecursionError) as error:
            block = next(blocks, "")
            if not block:
                raise InputError(f"{source.path}: record {count + 1} of the array is not JSON, or cut: {error}")
            text, place = text[place:] + block, 0  # the record goes on there
            continue
        count += 1
        yield from _text_of(record, field, f"{source.path}: record {count}", bad)


def _text_of(record: object, field: str, where: str, bad: BadRecord) -> Iterator[List[str]]:
    """Yield the lines of a record's text; nothing if it has none, which `bad` is told."""
    if not isinstance(record, dict) or field not in record:
        found = ", ".join(map(repr, list(record)[:8])) if isinstance(record, dict) else "no object"
        return bad(f"{where} has no text {field!r} (found {found}); name it by --text_field")
    text = record[field]
    if not isinstance(text, str):
        return bad(f"{where}: {field!r} is {json.dumps(text):.40}, not a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return bad(f"{where}: {field!r} holds half a character: {error.reason}")
    yield [part.rstrip("\r") for part in text.split("\n") if part.strip()]


NAMES: Dict[str, str] = {
    "plain": "plain text",
    "wiki": "WikiExtractor's <doc>",
    "json_lines": "JSON lines",
    "json_array": "JSON arrays",
}


def tell(source: Source) -> str:
    """Return the form of a file, a name of `NAMES`, by its first lines; a name that says JSON must be believed.

    Raises:
        InputError: JSON, but neither an object a line nor an array of objects.
    """
    start = "".join(itertools.islice(_some(source.blocks()), 64)).lstrip("\ufeff \t\r\n")
    first = start.split("\n", 1)[0]
    if DOC.fullmatch(first + "\n" if first else ""):
        return "wiki"
    if re.match(r"\[\s*\{", start):
        return "json_array"
    named = re.search(r"\.(jsonl|ndjson|json)(\.\w+)?$", source.path)
    if first.startswith("{") and _is_object(first, cut=len(start) >= LOOKED_AT and "\n" not in start):
        return "json_lines"
    if named and named[1] != "json":
        return "json_lines"
    if named and start:
        raise InputError(
            f"{source.path}: neither one JSON object a line nor an array of objects; write one object a line, e.g. "
            "with jq -c"
        )
    return "plain"


def _some(blocks: Iterator[str]) -> Iterator[str]:
    size = 0
    for block in blocks:
        yield block[:LOOKED_AT]
        size += len(block)
        if size >= LOOKED_AT:
            return


def _is_object(line: str, cut: bool) -> bool:
    if cut:  # too long a line to see its end
        return re.match(r'\{\s*"[^"\n]*"\s*:', line) is not None
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def documents(source: Source, form: str, field: str, longest: int, bad: BadRecord) -> Documents:
    """Yield the documents of a file, the lines of text of each.

    Args:
        form: as `tell` returned it. field: that holds the text, for JSON.
        longest: characters after which a line of plain text is cut.
        bad: is told of each record that has no text, and may raise.
    """
    if form in ("json_lines", "json_array"):
        return {"json_lines": json_lines, "json_array": json_array}[form](source, field, bad)
    return {"plain": plain, "wiki": wiki}[form](source, longest)
