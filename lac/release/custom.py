"""A user's own words: what they are and which type they have overrules the tagger.

An item is one or more pieces of text, each with a type (`text/TYPE`) or without (`text`): `长江大桥/BRIDGE`,
`小程序/n 跑`. Wherever its whole text occurs it is cut at the ends of its pieces; a piece without a type keeps the
tagger's. A single character without a type says nothing and is left out.
"""

import itertools
from typing import Dict, List, Optional, Set, Tuple

from elmo_chinese.text.reading import read_lines

from lac.model import Tagged

Item = List[Tuple[str, str]]  # pieces and their labels, "" where there is none


class Items:
    """Items by their text; `starts` holds what their texts start with, to know when to stop looking."""

    def __init__(self):
        self.by_text: Dict[str, Item] = {}
        self.starts: Set[str] = set()

    def add(self, line: str, sep: Optional[str] = None) -> None:
        """Add an item: its pieces, apart by `sep` (None: by white space)."""
        pieces = []
        for piece in map(str.strip, line.strip().split(sep)):
            text, slash, label = piece.rpartition("/")
            text, label = (text, label) if slash and text else (piece, "")
            if text:
                pieces.append((text, label))
        text = "".join(piece for piece, _ in pieces)
        if len(text) > 1 or (text and pieces[0][1]):
            self.by_text[text] = pieces
            self.starts.update(text[:end] for end in range(1, len(text)))


def read(path: str, sep: Optional[str] = None) -> Items:
    """Return the items of a file, one a line; `InputError`: no such file, or not UTF-8."""
    items = Items()
    for line in itertools.chain.from_iterable(read_lines(path)):
        items.add(line, sep)
    return items


def apply(items: Items, tagged: Tagged) -> Tagged:
    """Return a text by characters, tagged as the items have it wherever one of them occurs, elsewhere as it was.

    The first character of a token has its tag, the others go on with it.
    """
    text, bio, weights = "".join(tagged.tokens), [], None if tagged.weights is None else []
    for number, (token, tag) in enumerate(zip(tagged.tokens, tagged.bio)):
        bio += [tag, *[tag[:-2] + "-I"] * (len(token) - 1)]
        if weights is not None:
            weights += [tagged.weights[number]] * len(token)
    furthest = 0
    for start in range(len(text)):
        end = start + 1
        while end <= len(text):
            piece = text[start:end]
            if piece in items.by_text and end > furthest:
                _overrule(bio, start, items.by_text[piece])
                furthest = end
            if piece not in items.starts:
                break
            end += 1
    return Tagged(list(text), bio, weights)


def _overrule(bio: List[str], start: int, item: Item) -> None:
    for text, label in item:
        for position in range(start, start + len(text)):
            bio[position] = (label or bio[position][:-2]) + ("-B" if position == start else "-I")
        start += len(text)
    if start < len(bio):  # what follows is another word
        bio[start] = bio[start][:-2] + "-B"
