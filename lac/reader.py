"""From sentences to arrays: tag sets, replacements of characters, the words of a new model, batches.

Padding is told from the lengths alone.
"""

from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple

from elmo_chinese.text.reading import InputError, PathLike, read_lines
from elmo_chinese.text.vocabulary import END, START, UNKNOWN

from lac.scores import Span

# The project's own, wherever it is installed.
TAGS_FILE = Path(__file__).parent / "data" / "tag.dic"
TABLE_FILE = Path(__file__).parent / "conf" / "q2b.dic"
Table = Dict[int, str]


class Sentence(NamedTuple):
    """A tagged line: its tokens, tags for them if it is to be trained on, and its words as spans of characters."""

    words: List[str]
    tags: List[str]
    gold: List[Span]


def read_tags(path: PathLike) -> List[str]:
    """Return the tags of a `tag.dic`, one a line; the line number from 0 is the id.

    Raises:
        InputError: an empty file, a blank line, white space in a tag, a tag that stands there twice.
    """
    names = [line.rstrip("\r") for block in read_lines(path) for line in block]
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise InputError(f"{path}: no tags in it; one tag a line is expected, such as n, n-B and n-I")
    lines: Dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if len(name.split()) != 1 or name != name.strip():
            raise InputError(f"{path}: line {number}: expected one tag and nothing else, found {name!r}")
        if name in lines:
            raise InputError(f"{path}: {name!r} stands on line {lines[name]} and again on line {number}")
        lines[name] = number
    return names


def read_table(path: PathLike) -> Table:
    """Return the replacements of a `q2b.dic` in the form that `str.translate` takes.

    Raises:
        InputError: a line is not one character, a tab, and what replaces it; or one stands there twice.
    """
    table: Table = {}
    for number, line in enumerate((line for block in read_lines(path) for line in block), start=1):
        columns = line.rstrip("\r").split("\t")
        if columns == [""]:
            continue
        if len(columns) != 2 or len(columns[0]) != 1:
            raise InputError(f"{path}: line {number}: expected a character, a tab and its replacement, found {line!r}")
        if ord(columns[0]) in table:
            raise InputError(f"{path}: line {number}: {columns[0]!r} (U+{ord(columns[0]):04X}) is there already")
        table[ord(columns[0])] = columns[1]
    return table


def build_vocabulary(sentences: Iterable[Sentence], table: Table) -> List[str]:
    """Return the specials, and the tokens of sentences as they are looked up, the most frequent first."""
    specials = [START, END, UNKNOWN]
    counts = Counter(word.translate(table) for sentence in sentences for word in sentence.words)
    words = sorted((word for word in counts if word.strip()), key=lambda word: (-counts[word], word))
    return specials + [word for word in words if word not in specials]
