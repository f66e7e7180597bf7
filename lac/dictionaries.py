"""The dictionaries of a released LAC model: how text becomes tokens, and tokens ids.

    word.dic        `id<TAB>token`; the token OOV stands for all others
    small_seg.dic   `word count`: the text is cut into its words; the model of mode seg has no use for it, for it each
                    character is a token
    tag.dic         `id<TAB>tag`, for some ids several; the last one names it

The replacements of `q2b.dic` are read by `lac/reader.py`.
"""

import math
from pathlib import Path
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

from elmo_chinese.text import InputError, read_lines

import numpy as np

from lac.reader import Table
from lac.scores import released_kind

UNKNOWN = "OOV"
ASCII_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Dictionaries(NamedTuple):
    """What it takes to read text as a released model does.

    Attributes:
        ids: of tokens as they stand in text, after the replacements of q2b.dic. unknown: of all others.
        size: how many tokens word.dic has.
        cut: text → tokens, which joined up are the text.
        words, pieces: the texts of word.dic and small_seg.dic, to be written again; `pieces` is None where each
            character is a token.
    """

    ids: Dict[str, int]
    unknown: int
    size: int
    cut: Callable[[str], List[str]]
    words: str
    pieces: Optional[str]

    @property
    def mode(self) -> str:
        """The mode it was trained for: "seg" if each character is a token, else "lac"."""
        return "seg" if self.pieces is None else "lac"


def _rows(path: Path, lines: Iterable[str]) -> List[List[str]]:
    """Return the columns of lines `id<TAB>text`."""
    rows = []
    for number, line in enumerate(lines, start=1):
        row = line.rstrip("\r").split("\t")
        if row == [""]:
            continue
        if len(row) != 2 or not row[0].isdecimal():
            raise InputError(f"{path}: line {number}: expected `id<TAB>text`, found {line[:60]!r}")
        rows.append(row)
    return rows


def _lines(path: Path) -> List[str]:
    return [line for block in read_lines(path) for line in block]


def read_tag_names(path: Path) -> List[str]:
    """Return the tags by id."""
    names = {int(number): name for number, name in _rows(path, _lines(path))}
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: the ids are not 0 to {len(names) - 1}")
    return [names[number] for number in range(len(names))]


def parse(folder: Path, words: Sequence[str], pieces: Optional[Sequence[str]], table: Table) -> Dictionaries:
    """Return the dictionaries of these lines.

    Args:
        folder: where they come from, for messages.
        table: replacements of characters before the look-up.
    """
    path = folder / "word.dic"
    ids = {token: int(number) for number, token in _rows(path, words)}
    if UNKNOWN not in ids:
        raise InputError(f"{path}: no token {UNKNOWN} in it")
    cut = list if pieces is None else Cutter(folder / "small_seg.dic", pieces, ids)
    texts = "\n".join(words), None if pieces is None else "\n".join(pieces)
    # Only a token of one character is replaced: the table knows characters, and the release looks up whole tokens.
    replaced = {chr(one): ids.get(other, ids[UNKNOWN]) for one, other in table.items()}
    return Dictionaries({**ids, **replaced}, ids[UNKNOWN], len(ids), cut, *texts)


def read(folder: Path, tags: Sequence[str], table: Table) -> Dictionaries:
    """Return the dictionaries of a folder.

    Args:
        tags: of the model; where they say nothing but where words end, each character is a token.
        table: see `parse`.

    Raises:
        InputError: a line or a file that cannot be used.
    """
    pieces = _lines(folder / "small_seg.dic") if any(map(released_kind, tags)) else None
    return parse(folder, _lines(folder / "word.dic"), pieces, table)


class Cutter:
    """Cuts text into tokens along the best path of dictionary words.

    A piece scores log(its length if it is a word of the dictionary, else 1) - log(sum of all counts); so the release
    does it, although a unigram model would take the word's count.

    Args:
        path: of `small_seg.dic`, for messages.
        lines: its lines, `word count`.
        tokens: what may be one token; other pieces fall into characters.
    """

    def __init__(self, path: Path, lines: Iterable[str], tokens: Dict[str, int]):
        self.tokens, self.words, total = tokens, {}, 0
        self.starts = set()  # of words: where none goes on like this, there is nothing longer to look for
        for number, line in enumerate(lines, start=1):
            word, _, count = line.rstrip("\r").partition(" ")
            if not count.isdecimal():
                raise InputError(f"{path}: line {number}: expected `word count`, found {line[:60]!r}")
            total += int(count)
            self.words[word] = math.log(len(word))
            self.starts.update(word[:end] for end in range(1, len(word)))
        self.words = {word: score - math.log(total) for word, score in self.words.items()}
        self.one = math.log(1) - math.log(total)

    def __call__(self, text: str) -> List[str]:
        """Return the tokens of a text."""
        size, words, starts = len(text), self.words, self.starts
        best, ends = [0.0] * (size + 1), [0] * size
        for start in range(size - 1, -1, -1):
            most, end_of_most, end = self.one + best[start + 1], start + 1, start + 1
            piece = text[start:end]
            while piece in starts and end < size:
                end += 1
                piece = text[start:end]
                score = words.get(piece)
                if score is not None and score + best[end] >= most:  # of equally good ones, the longest
                    most, end_of_most = score + best[end], end
            best[start], ends[start] = most, end_of_most
        tokens, start = [], 0
        while start < size:
            end = ends[start]
            if end == start + 1 and text[start] in ASCII_WORD:  # letters and digits that stand alone stay together
                while end < size and ends[end] == end + 1 and text[end] in ASCII_WORD:
                    end += 1
            piece = text[start:end]
            if piece in self.tokens:
                tokens.append(piece)
            else:
                tokens.extend(piece)
            start = end
        return tokens


def token_ids(dictionaries: Dictionaries, tokens: Sequence[str]) -> np.ndarray:
    """Return the ids of tokens, int64."""
    ids, unknown = dictionaries.ids, dictionaries.unknown
    return np.array([ids.get(token, unknown) for token in tokens], dtype=np.int64)
