"""From sentences to arrays: tag sets, replacements of characters, the words of a new model, batches.

Padding is told from the lengths alone.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from elmo_chinese.text import InputError, PathLike, read_lines
from elmo_chinese.vocabulary import END, START, UNKNOWN, Vocabulary

import numpy as np

from lac.scores import Span

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


def vocabulary_from(words: Iterable[str]) -> Vocabulary:
    """Return the vocabulary with these lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.txt"
        path.write_bytes("".join(word + "\n" for word in words).encode("utf-8"))
        return Vocabulary(path)


def build_vocabulary(sentences: Iterable[Sentence], table: Table) -> List[str]:
    """Return the specials, and the tokens of sentences as they are looked up, the most frequent first."""
    specials = [START, END, UNKNOWN]
    counts = Counter(word.translate(table) for sentence in sentences for word in sentence.words)
    words = sorted((word for word in counts if word.strip()), key=lambda word: (-counts[word], word))
    return specials + [word for word in words if word not in specials]


def pad(rows: Sequence[np.ndarray], width: Optional[int] = None) -> np.ndarray:
    """Return arrays `[words, …]` as one `[rows, width, …]`, zero behind each; width None: the longest."""
    width = max(len(row) for row in rows) if width is None else width
    padded = np.zeros((len(rows), width, *rows[0].shape[1:]), dtype=rows[0].dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def training_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, pool: int = 16) -> List[np.ndarray]:
    """Return the sentences of each batch of an epoch: every sentence once, in an order of seed and epoch alone.

    Sentences are shuffled; each `pool` batches of them are sorted by length, so that a batch has sentences of
    like length and little padding; the batches are shuffled again.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), pool * batch_size):
        part = order[start : start + pool * batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    return [batches[number] for number in random.permutation(len(batches))]


def batches_by_length(lengths: np.ndarray, max_tokens: int, max_sentences: int) -> Iterator[np.ndarray]:
    """Yield the sentences of each batch, shortest first, with at most `max_tokens` tokens, padding included.

    A sentence with more than that is a batch of its own.
    """
    batch: List[int] = []
    for number in np.argsort(lengths, kind="stable"):
        if batch and ((len(batch) + 1) * lengths[number] > max_tokens or len(batch) == max_sentences):
            yield np.array(batch)
            batch = []
        batch.append(number)
    if batch:
        yield np.array(batch)
