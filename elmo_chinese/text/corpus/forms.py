"""The forms in which documents come, told by what is in a file.

Each form is a function of a file's lines or blocks that yields, for each document, its lines of text.
"""

import codecs
import csv
import html
import io
import itertools
import json
import re
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple

from elmo_chinese.text.corpus.wikipedia import articles
from elmo_chinese.text.encoding import NAMES as ENCODINGS
from elmo_chinese.text.encoding import guess_encoding
from elmo_chinese.text.reading import (
    LOOKED_AT,
    NUMBERED,
    InputError,
    check_characters,
    form_of,
    reading,
    split_lines,
)

BLOCK = 2**20  # bytes read at once
LONGEST_LINE = 2**22  # characters; plain text without line ends is cut there
LONGEST_RECORD = 2**26  # characters; JSON that is not whole after so many is damaged
DOC = re.compile(r"\s*<doc\s.*>\s*")  # a title may hold a >
BETWEEN = re.compile(r"[\s,\[\]]*")  # objects of an array, of several arrays, or one after another
WIKI_KEYS = {"id", "url", "title"}  # of a record of WikiExtractor, besides the text
COLUMN = re.compile(r"[^\W\d]\w*")  # the name of a column of a table
DELIMITERS = ",\t;"
CONLLU = "take the sentences out of it: grep '^# text = ' FILE | cut -c 10- > TEXT"
csv.field_size_limit(LONGEST_RECORD)  # it is 131,072 characters, fewer than a document may have
Documents = Iterator[Iterable[str]]
BadRecord = Callable[[str], None]  # is told what is wrong with a record; may raise


class Source(NamedTuple):
    """A file to read documents from, and the codec of its text."""

    path: str
    encoding: str

    def blocks(self) -> Iterator[str]:
        r"""Yield the text in blocks; \r\n and \r are \n.

        Raises:
            InputError: naming the first byte that is not text, counted in the unpacked file.
        """
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(self.encoding)(), translate=True)
        offset = 0
        for block in read_blocks(self.path):
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # The decoder had held back the start of a character, so its object starts before the block.
                place = offset + len(block) - len(error.object) + error.start
                raise InputError(
                    f"{self.path}: looks like {ENCODINGS[self.encoding]}, but is not from end to end: byte {place} is "
                    f"0x{error.object[error.start]:02x}; mend or convert it"
                )
            if "\0" in text:
                raise InputError(
                    f"{self.path}: not text: it holds the character 0, after {offset:,} bytes; mend or convert it"
                )
            if offset == 0:
                check_characters(self.path, text)
            offset += len(block)
            yield text

    def lines(self, longest: float = float("inf")) -> Iterator[str]:
        """Yield the lines without their ends; one of more than about `longest` characters is cut."""
        rest = ""
        for text in self.blocks():
            lines = (rest + text).split("\n")
            rest = lines.pop()
            yield from lines
            if len(rest) > longest:
                yield rest
                rest = ""
        if rest:
            yield rest

    def text_lines(self) -> Iterator[str]:
        """Yield the lines of plain text, see `split_lines`; one of more than about `LONGEST_LINE` characters is cut."""
        return itertools.chain.from_iterable(map(split_lines, self.lines(LONGEST_LINE)))


def read_blocks(path: str) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file, and nothing as the last block."""
    with reading(path) as file:
        block = b"-"
        while block:
            block = file.read(BLOCK)
            yield block


def open_source(path: str) -> Source:
    """Return a file with the codec that its first block with more than ASCII tells; UTF-8 drops a byte order mark."""
    for block in read_blocks(path):
        if not block.isascii() or b"\0" in block:
            return Source(path, guess_encoding(block))
    return Source(path, "utf-8-sig")


# --- the forms ---


def plain(source: Source, field: str, bad: BadRecord) -> Documents:
    """Text in which blank lines separate documents."""
    for blank, document in itertools.groupby(source.text_lines(), key=lambda line: not line.strip()):
        if not blank:
            yield document


def numbered(source: Source, field: str, bad: BadRecord) -> Documents:
    """A number, a tab and a sentence a line (Leipzig's corpora); each is a document."""
    for line in source.text_lines():
        number, tab, text = line.partition("\t")
        if tab and number.strip().isdecimal():
            yield [text]
        elif line.strip():
            raise InputError(f"{source.path}: numbered lines, but this one has no number: {line[:60]!r}; mend it")


def wiki(source: Source, field: str, bad: BadRecord) -> Documents:
    """What WikiExtractor writes: a document between `<doc …>` and `</doc>`, each to be used up before the next."""
    lines = enumerate(source.text_lines(), start=1)
    for number, line in lines:
        if DOC.fullmatch(line):
            yield _article(source, lines, number)
        elif line.strip():
            raise InputError(f"{source.path}: line {number}: text outside of <doc …> and </doc>: {line[:60]!r}")


def _article(source: Source, lines: Iterator, begun: int) -> Iterator[str]:
    number = begun
    for number, line in lines:
        if DOC.fullmatch(line):
            raise InputError(f"{source.path}: line {number}: <doc …> before the </doc> of line {begun}'s")
        text, closed, _ = line.partition("</doc>")
        if text.strip():
            yield html.unescape(text)  # WikiExtractor writes &lt; for <
        if closed:
            return
    raise InputError(f"{source.path}: the <doc …> of line {begun} is not closed by line {number}; is the file cut?")


def wikipedia(source: Source, field: str, bad: BadRecord) -> Documents:
    """The articles of Wikipedia's dump, each as its markup, see `wikipedia.lines_of_article`."""
    return articles(source.path, source.blocks())


def table(source: Source, field: str, bad: BadRecord) -> Documents:
    """Comma-separated values (or tabs, semicolons), the first line names the columns; a document a row."""
    lines = (line + "\n" for line in source.lines())
    rows = csv.reader(itertools.dropwhile(str.isspace, lines), delimiter=_delimiter(source, field), strict=True)
    try:
        names = next(rows, [])
        if field not in names:
            raise InputError(
                f"{source.path}: a table without a column {field!r} (found {', '.join(map(repr, names[:8]))}); "
                "name the one that holds the text by --text_field"
            )
        for row in rows:
            if row:
                record = dict(zip(names, row)) if len(row) == len(names) else None
                yield from _text_of(record, field, f"{source.path}: line {rows.line_num}", bad)
    except csv.Error as error:
        raise InputError(f"{source.path}: line {rows.line_num}: not a row of a table: {error}; is a quote missing?")


def _delimiter(source: Source, field: str) -> str:
    first = next(filter(str.strip, source.lines()), "")
    rows = {delimiter: next(csv.reader([first], delimiter=delimiter)) for delimiter in DELIMITERS}
    return max(DELIMITERS, key=lambda delimiter: (field in rows[delimiter], len(rows[delimiter])))


def json_lines(source: Source, field: str, bad: BadRecord) -> Documents:
    """One JSON object a line."""
    for number, line in enumerate(source.lines(), start=1):
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
    if WIKI_KEYS <= set(record):
        text = html.unescape(text)  # as in its <doc> form
    yield [part for part in split_lines(text) if part.strip()]


# --- which form ---

# What each form is called, and what reads it.
NAMES: Dict[str, str] = {
    "plain": "plain text",
    "numbered": NUMBERED,
    "wiki": "WikiExtractor's <doc>",
    "wikipedia": "Wikipedia's dump",
    "table": "CSV",
    "json_lines": "JSON lines",
    "json_objects": "JSON",
}
READERS: Dict[str, Callable[[Source, str, BadRecord], Documents]] = {
    **{"plain": plain, "numbered": numbered, "wiki": wiki, "wikipedia": wikipedia, "table": table},
    **{"json_lines": json_lines, "json_objects": json_objects},
}


def tell(source: Source, field: str) -> str:
    """Return the form of a file, a name of `NAMES`, by its first lines; a name that says JSON or CSV must be believed.

    Args:
        field: the column that holds the text, if it is a table.

    Raises:
        InputError: its name says JSON, but it is none; a form that is not read.
    """
    start = "".join(itertools.islice(_some(source.blocks()), 64)).lstrip("\ufeff \t\n")
    first, end, _ = start.partition("\n")
    if DOC.fullmatch(first):
        return "wiki"
    if start.startswith("<mediawiki"):
        return "wikipedia"
    form = form_of(start)
    if form == "markup":
        raise InputError(f"{source.path}: markup, not text (it begins with {first[:40]!r}); take the text out of it")
    if form == "CoNLL-U":
        raise InputError(f"{source.path}: CoNLL-U, not text; {CONLLU}")
    named = re.search(r"\.(jsonl|ndjson|json|csv|tsv)(\.\w+)?$", source.path)
    if named and named[1] in ("jsonl", "ndjson"):
        return "json_lines"
    if re.match(r"\[\s*\{", start):
        return "json_objects"
    if re.match(r'\{\s*"', start):
        return "json_lines" if first.rstrip().endswith("}") or not end else "json_objects"
    if named and start and named[1] == "json":
        raise InputError(f"{source.path}: neither JSON objects nor an array of them, though its name says JSON")
    if form == NUMBERED:
        return "numbered"
    return "table" if named or _is_table(start, field) else "plain"


def _is_table(start: str, field: str) -> bool:
    """Say whether text begins with the names of columns, and each of the next lines has as many fields."""
    lines = start.split("\n")[:5]
    for delimiter in DELIMITERS:
        names, *rows = csv.reader(lines, delimiter=delimiter)
        if len(names) > 1 and field in names:
            return True
        if len(names) > 1 and all(map(COLUMN.fullmatch, names)) and rows:
            if all(len(row) == len(names) for row in rows if row):
                return True
    return False


def _some(blocks: Iterator[str]) -> Iterator[str]:
    size = 0
    for block in blocks:
        yield block[:LOOKED_AT]
        size += len(block)
        if size >= LOOKED_AT:
            return
