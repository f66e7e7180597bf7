"""A user's own words: what they are and which type they have overrules the tagger.

An item is one or more pieces of text, each with a type (`text/TYPE`) or without (`text`): `长江大桥/BRIDGE`,
`小程序/n 跑`. Wherever its whole text occurs it is cut at the ends of its pieces; a piece without a type keeps the
tagger's. A single character without a type says nothing and is left out.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.text.reading import read_lines

Item = List[Tuple[str, str]]  # pieces and their types, "" where there is none


class Items(NamedTuple):
    """Items by their text; `starts` holds what their texts start with, to know when to stop looking."""

    by_text: Dict[str, Item]
    starts: set


def no_items() -> Items:
    """Return an empty dictionary."""
    return Items({}, set())


def add(items: Items, line: str, sep: Optional[str] = None) -> None:
    """Add an item.

    Args:
        line: its pieces, apart by `sep` (None: by white space).
    """
    pieces = []
    for piece in map(str.strip, line.strip().split(sep)):
        text, slash, kind = piece.rpartition("/")
        text, kind = (text, kind) if slash and text else (piece, "")
        if text:
            pieces.append((text, kind))
    text = "".join(piece for piece, _ in pieces)
    if not text or (len(text) == 1 and not pieces[0][1]):
        return
    items.by_text[text] = pieces
    items.starts.update(text[:end] for end in range(1, len(text)))


def read(path: str, sep: Optional[str] = None) -> Items:
    """Return the items of a file, one a line.

    Raises:
        InputError: no such file, or not UTF-8.
    """
    items = no_items()
    for block in read_lines(path):
        for line in block:
            add(items, line, sep)
    return items


def apply(items: Items, text: str, tags: List[str]) -> List[str]:
    """Return the tags of the characters of a text after the items have had their say.

    Args:
        tags: `type-B`, `-I`, `-E` or `-S` for each character.
    """
    if not items.by_text:
        return tags
    tags, furthest = list(tags), 0
    for start in range(len(text)):
        end = start + 1
        while end <= len(text):
            piece = text[start:end]
            if piece in items.by_text and end > furthest:
                _overrule(tags, start, items.by_text[piece])
                furthest = end
            if piece not in items.starts:
                break
            end += 1
    return tags


def _overrule(tags: List[str], start: int, item: Sequence[Tuple[str, str]]) -> None:
    for text, kind in item:
        for place in range(start, start + len(text)):
            tags[place] = (kind or tags[place][:-2]) + ("-B" if place == start else "-I")
        start += len(text)
    if start < len(tags):  # what follows is another word
        tags[start] = tags[start][:-2] + "-B"
