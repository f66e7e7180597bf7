"""From tagged lines to arrays.

1. A line is `word word …<TAB>tag tag …`, one tag for each word. A third field, `word/tag word/tag …`, is the
   gold segmentation of the same text, where it is not the one that the tags make up: held-out text is cut by
   jieba alone, as at prediction, and its tokens may not be able to express it (`lac/corpus.py`).
2. Tags are the lines of `tag.dic`, words those of a vocabulary. Before a word's id is looked up its
   characters are replaced as `q2b.dic` says (full-width → half-width); the text itself stays as it is.
3. Batches are padded, and padding is told from the lengths alone.
"""

import functools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.text import InputError, find_files, read_lines
from elmo_chinese.vocabulary import END, START, UNKNOWN, Vocabulary

import numpy as np

from lac.scores import Span, spans, split_tag

PathLike = Union[str, Path]
Table = Dict[int, str]


class Sentence(NamedTuple):
    """A tagged line: its tokens, a tag for each, and its words as spans of characters."""

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


def parse_line(line: str, known: Optional[Dict[str, None]] = None) -> Sentence:
    """Return the sentence of a line, its tags among the known (None: any); `ValueError` says what is wrong with it."""
    fields = line.split("\t")
    if len(fields) not in (2, 3):
        found = "no tab" if len(fields) == 1 else f"{len(fields)} fields"
        raise ValueError(f"expected `words<TAB>tags`, found {found}: {line[:60]!r}")
    words, tags = fields[0].split(), fields[1].split()
    if len(words) != len(tags):
        raise ValueError(f"{len(words)} words, but {len(tags)} tags: {line[:60]!r}")
    if not words:
        raise ValueError("no words before the tab")
    if len(fields) == 3:
        return Sentence(words, tags, _gold_spans(words, fields[2]))
    for word, tag in zip(words, tags):
        if known is not None and tag not in known:
            raise ValueError(f"unknown tag {tag!r} of word {word!r}; the tag set has {', '.join(list(known)[:8])} …")
    return Sentence(words, tags, spans(words, tags))


def _gold_spans(words: Sequence[str], field: str) -> List[Span]:
    found, place = [], 0
    for token in field.split():
        word, slash, tag = token.rpartition("/")
        if not word or not tag:
            raise ValueError(f"third field: expected word/tag, found {token!r}")
        found.append(Span(place, place + len(word), tag))
        place += len(word)
    if "".join(words) != "".join(token.rpartition("/")[0] for token in field.split()):
        raise ValueError("the third field is not the text of the first one")
    return found


def read_sentences(
    paths: Union[PathLike, Sequence[PathLike]],
    tags: Optional[Sequence[str]] = None,
    on_bad_line: str = "error",
    parse: Optional[Callable[[str], Sentence]] = None,
) -> Tuple[List[Sentence], List[str]]:
    """Return the sentences of tagged files, blank lines left out, and what is wrong with the lines skipped.

    Args:
        paths: see `reader.find_files`.
        tags: the tag set, None if any tag will do. In a line with a gold field its tags are not looked at.
        on_bad_line: "error", or "skip" to leave a line out that cannot be used.
        parse: function line → sentence for other lines than these, see `lac/released_lines.py`.

    Raises:
        InputError: naming file and line: no tab, unequal counts of words and tags, an unknown tag. Or no line
            of a file can be used.
    """
    parse = parse or functools.partial(parse_line, known=None if tags is None else dict.fromkeys(tags))
    sentences, problems = [], []
    for path in find_files(paths):
        before = len(sentences)
        for number, line in enumerate((line for block in read_lines(path) for line in block), start=1):
            if not line.strip():
                continue
            try:
                sentences.append(parse(line.rstrip("\r")))
            except ValueError as error:
                problem = f"{path}: line {number}: {error}"
                if on_bad_line == "error":
                    raise InputError(f"{problem} (--on_bad_line skip leaves such lines out)")
                problems.append(problem)
        if len(sentences) == before:
            raise InputError(f"{path}: no usable line in it" + (f"; the first: {problems[-1]}" if problems else ""))
    return sentences, problems


def check_gold(sentences: Sequence[Sentence], tags: Sequence[str], where: str) -> int:
    """Return how many gold words are of a type that the tag set cannot express, so that they will count as missed.

    Raises:
        InputError: all of them: the text was tagged with another tag set.
    """
    known = {split_tag(tag)[0] for tag in tags}
    kinds = [span.tag for sentence in sentences for span in sentence.gold]
    missed = [kind for kind in kinds if kind not in known]
    if kinds and len(missed) == len(kinds):
        raise InputError(
            f"{where}: tagged with another tag set than the model's: it has {', '.join(sorted(set(missed))[:8])} …, "
            f"the model {', '.join(sorted(known)[:8])} …"
        )
    return len(missed)


def vocabulary_from(words: Iterable[str]) -> Vocabulary:
    """Return the vocabulary with these lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.txt"
        path.write_bytes("".join(word + "\n" for word in words).encode("utf-8"))
        return Vocabulary(path)


def count_words(sentences: Iterable[Sentence], table: Table) -> Counter:
    """Count the words of sentences in the form in which they are looked up."""
    return Counter(word.translate(table) for sentence in sentences for word in sentence.words)


def build_vocabulary(counts: Counter) -> Vocabulary:
    """Return the vocabulary of all counted words, most frequent first, behind the three specials."""
    specials = [START, END, UNKNOWN]
    words = sorted((word for word in counts if word.strip()), key=lambda word: (-counts[word], word))
    return vocabulary_from(specials + [word for word in words if word not in specials])


def normalised_ids(words: Sequence[str], vocabulary: Vocabulary, table: Table) -> List[int]:
    """Return ids of words after replacing characters; if that form is unknown, of the word as it stands."""
    ids, unknown = vocabulary.ids, vocabulary.unknown
    return [ids.get(word.translate(table), ids.get(word, unknown)) for word in words]


def plain_ids(words: Sequence[str], vocabulary: Vocabulary, table: Table) -> List[int]:
    """Return ids of words as they stand; if that form is unknown, after replacing characters.

    For a biLM, which was trained on text as it stands.
    """
    ids, unknown = vocabulary.ids, vocabulary.unknown
    return [ids.get(word, ids.get(word.translate(table), unknown)) for word in words]


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
