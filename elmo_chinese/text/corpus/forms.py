"""The forms in which documents come, told by what is in a file: plain text, JSON, what WikiExtractor writes.

Each form is a function of the lines or blocks of a file that yields, for each document, its lines of text.
"""

import html
import itertools
import json
import re
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple

from elmo_chinese.text.reading import InputError

LOOKED_AT = 2**16  # characters of a file that tell its form
LONGEST_RECORD = 2**26  # characters; JSON that is not whole after so many is damaged
DOC = re.compile(r"\s*<doc\s.*>\s*")  # a title may hold a >
MARKUP = re.compile(r"<(\?xml|!doctype|html|mediawiki|doc)\b", re.IGNORECASE)
BETWEEN = re.compile(r"[\s,\[\]]*")  # objects of an array, of several arrays, or one after another
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
    """What WikiExtractor writes: a document between `<doc …>` and `</doc>`, each to be used up before the next."""
    numbered = enumerate(source.lines(longest), start=1)
    for number, line in numbered:
        if DOC.fullmatch(line):
            yield _article(source, numbered, number)
        elif line.strip():
            raise InputError(f"{source.path}: line {number}: text outside of <doc …> and </doc>: {line[:60]!r}")


def _article(source: Source, numbered: Iterator, begun: int) -> Iterator[str]:
    number = begun
    for number, line in numbered:
        if DOC.fullmatch(line):
            raise InputError(f"{source.path}: line {number}: <doc …> before the </doc> of line {begun}'s")
        text, closed, _ = line.partition("</doc>")
        if text.strip():
            yield html.unescape(text)  # WikiExtractor writes &lt; for <
        if closed:
            return
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


def json_objects(source: Source, field: str, bad: BadRecord) -> Documents:
    """JSON objects in an array or one after another, over any lines, read bit by bit."""
    decode, rest, enough, count, depth = json.JSONDecoder().raw_decode, "", 0, 0, 0
    for text in itertools.chain(source.blocks(), [None]):  # None: the end
        rest, place = rest + (text or ""), 0
        while text is None or len(rest) >= enough:
            between = BETWEEN.match(rest, place)
            depth += between.group().count("[") - between.group().count("]")
            place = between.end()
            if place == len(rest):
                break
            try:
                record, place = decode(rest, place)
            except (ValueError, RecursionError) as error:
                if text is None or not _may_go_on(error, rest, place):
                    raise InputError(f"{source.path}: record {count + 1} is not JSON, or cut: {error}")
                enough = 2 * (len(rest) - place)  # so that a record over many blocks is not tried at each
                break
            count, enough = count + 1, 0
            yield from _text_of(record, field, f"{source.path}: record {count}", bad)
        rest = rest[place:]
    if depth:
        raise InputError(f"{source.path}: [ and ] do not match after {count} records; is the file cut?")


def _may_go_on(error: Exception, rest: str, place: int) -> bool:
    """Say whether what cannot be read yet may be the start of a sound record."""
    if not isinstance(error, json.JSONDecodeError) or len(rest) - place > LONGEST_RECORD:
        return False
    return error.pos >= len(rest) - 16 or error.msg.startswith("Unterminated string")


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
    "json_objects": "JSON",
}


def tell(source: Source) -> str:
    """Return the form of a file, a name of `NAMES`, by its first lines; a name that says JSON must be believed.

    Raises:
        InputError: its name says JSON, but it is none; markup that is not read.
    """
    start = "".join(itertools.islice(_some(source.blocks()), 64)).lstrip("\ufeff \t\r\n")
    first, end, _ = start.partition("\n")
    if DOC.fullmatch(first):
        return "wiki"
    if MARKUP.match(start):
        raise InputError(f"{source.path}: markup, not text (it begins with {first[:40]!r}); take the text out of it")
    named = re.search(r"\.(jsonl|ndjson|json)(\.\w+)?$", source.path)
    if named and named[1] != "json":
        return "json_lines"
    if re.match(r"\[\s*\{", start):
        return "json_objects"
    if re.match(r'\{\s*"', start):
        return "json_lines" if first.rstrip().endswith("}") or not end else "json_objects"
    if named and start:
        raise InputError(f"{source.path}: neither JSON objects nor an array of them, though its name says JSON")
    return "plain"


def _some(blocks: Iterator[str]) -> Iterator[str]:
    size = 0
    for block in blocks:
        yield block[:LOOKED_AT]
        size += len(block)
        if size >= LOOKED_AT:
            return


def documents(source: Source, form: str, field: str, longest: int, bad: BadRecord) -> Documents:
    """Yield the documents of a file, the lines of text of each.

    Args:
        form: as `tell` returned it. field: that holds the text, for JSON.
        longest: characters after which a line of plain text is cut.
        bad: is told of each record that has no text, and may raise.
    """
    if form in ("json_lines", "json_objects"):
        return {"json_lines": json_lines, "json_objects": json_objects}[form](source, field, bad)
    return {"plain": plain, "wiki": wiki}[form](source, longest)
