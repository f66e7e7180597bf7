"""The dictionaries of a released LAC model: how text becomes tokens, and tokens ids.

    word.dic        `id<TAB>token`; the token OOV stands for all others
    small_seg.dic   `word count`: the text is cut into its words; the model of mode seg has no use for it, for it each
                    character is a token
    tag.dic         `id<TAB>tag`, for some ids several; the last one names it

The replacements of `q2b.dic` are read by `lac/reader.py`.
"""

from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

from elmo_chinese.cutter import CharacterCutter, PathCutter, read_counts
from elmo_chinese.text import InputError, read_lines

import numpy as np

from lac.reader import Table
from lac.scores import released_kind

UNKNOWN = "OOV"
Cutter = Union[PathCutter, CharacterCutter]


class Dictionaries(NamedTuple):
    """What it takes to read text as a released model does.

    Attributes:
        ids: of tokens as they stand in text, after the replacements of q2b.dic. unknown: of all others.
        size: how many tokens word.dic has.
        cutter: text → tokens.
        words, pieces: the texts of word.dic and small_seg.dic, to be written again; `pieces` is None where each
            character is a token.
    """

    ids: Dict[str, int]
    unknown: int
    size: int
    cutter: Cutter
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
    cutter: Cutter = CharacterCutter()
    if pieces is not None:
        cutter = PathCutter(read_counts(folder / "small_seg.dic", pieces), "length", ids)
    texts = "\n".join(words), None if pieces is None else "\n".join(pieces)
    # Only a token of one character is replaced: the table knows characters, and the release looks up whole tokens.
    replaced = {chr(one): ids.get(other, ids[UNKNOWN]) for one, other in table.items()}
    return Dictionaries({**ids, **replaced}, ids[UNKNOWN], len(ids), cutter, *texts)


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


def token_ids(dictionaries: Dictionaries, tokens: Sequence[str]) -> np.ndarray:
    """Return the ids of tokens, int64."""
    ids, unknown = dictionaries.ids, dictionaries.unknown
    return np.array([ids.get(token, unknown) for token in tokens], dtype=np.int64)
