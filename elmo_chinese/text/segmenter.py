"""How text becomes words. A segmenter has

    cut          a text → its words, without white space, after `width` (see `normalise`)
    cut_many     texts → for each the list of its tokens, white space included: joined up they are the text
    kind         its name, for `make`
    tokens       what may be one token, None: anything
    dictionary   what it takes to make it again, as text; empty if it needs none
    note         all of this as a dictionary for JSON. `preprocess.py sentences` writes it beside a corpus, `vocabulary`
                 beside a vocabulary, and `train.py` into checkpoints: raw text for a model is cut as its own was

`PathSegmenter` takes the best path of dictionary words:

    score     of a piece; the best path has the largest sum. By count (a unigram model): the logarithm of the
              word's share of all counts. By length (so the released LAC models do it): log(length) - log(all counts)
    path      at each place the candidates are the words that start there and the single character, which scores as a
              count of 1 if it is no word. It is found from the right, and of equally good ends the furthest counts
    letters   a-z, A-Z and 0-9 that are single pieces of the path side by side stay together

Its loops are in `cpp/cutting.cc`; without it, the same is done here.
"""

import functools
import itertools
import math
from pathlib import Path
from typing import Callable, Container, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.network import kernels
from elmo_chinese.text import jieba_words
from elmo_chinese.text.corpus.sentences import normalise
from elmo_chinese.text.reading import InputError, PathLike, read_lines
from elmo_chinese.text.vocabulary import END, START, UNKNOWN, Vocabulary

import numpy as np

Counts = Dict[str, int]
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
UNICODE = 0x110000
FEW = 24  # characters; fewer are cut here in the time that it takes to call C++
# Full-width characters of ASCII are looked up as those, and all digits as one: 1998年 and １９９７年 are the same word.
HALF_WIDTH = {0x3000: " ", **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}}
DIGITS = {code: "0" for code in (*range(ord("0"), ord("9") + 1), *range(ord("０"), ord("９") + 1))}
MOST = 10**9  # the count of the first word where counts are by rank (Zipf's law: that of the n-th is 1/n of it)


def by_count(words: Sequence[str], counts: np.ndarray, total: int) -> np.ndarray:
    """Return the logarithms of the words' shares of `total`, float64; a count of 0 is taken as 1."""
    return np.log(np.maximum(counts, 1)) - math.log(total)


def by_length(words: Sequence[str], counts: np.ndarray, total: int) -> np.ndarray:
    """Return the scores of the released models, float64: the counts decide nothing but `total`."""
    logarithms = [0.0, *map(math.log, range(1, 1 + max(map(len, words))))]
    return np.array([logarithms[len(word)] for word in words]) - math.log(total)


class Rule(NamedTuple):
    """How words score, what replaces characters before they are looked up (one for one), what may be a token."""

    score: Callable[[Sequence[str], np.ndarray, int], np.ndarray]
    table: Dict[int, str]
    any_token: bool  # False: only words of the model's vocabulary


RULES = {
    "count": Rule(by_count, {**HALF_WIDTH, **DIGITS}, True),
    "length": Rule(by_length, {}, False),
    "words": Rule(by_count, {}, False),  # along the words of a biLM: they are looked up as they stand
}


def read_counts(path: Union[str, Path], lines: Iterable[str]) -> Counts:
    """Return the words of a dictionary's lines with their counts; those of a word that stands there twice add up.

    Args:
        path: where they come from, for messages.
        lines: `word count`; a third column, as in jieba's dictionary, is not looked at.

    Raises:
        InputError: a line is not like that; no line at all.
    """
    counts: Counts = {}
    for number, line in enumerate(lines, start=1):
        columns = line.rstrip("\r").split(" ")
        if columns == [""]:
            continue
        if not (2 <= len(columns) <= 3 and columns[0] and columns[1].isdecimal()):
            raise InputError(f"{path}: line {number}: expected `word count`, found {line[:60]!r}")
        counts[columns[0]] = counts.get(columns[0], 0) + int(columns[1])
    if not any(counts.values()):
        raise InputError(f"{path}: no word with a count in it; `word count` is expected on each line")
    return counts


class Segmenter:
    """What all segmenters have; see the head of this file.

    Attributes:
        width: of `normalise`, which `cut` and `preprocess.py sentences` apply before.
    """

    kind, dictionary, width = "", "", "none"
    tokens: Optional[Container[str]] = None

    def cut_many(self, texts: Sequence[str]) -> List[List[str]]:
        """Return the tokens of texts; those of a text joined up are the text."""
        raise NotImplementedError

    def cut(self, text: str) -> List[str]:
        """Return the words of a text, without white space."""
        (tokens,) = self.cut_many([normalise(text, self.width)])
        return " ".join(tokens).split()

    @property
    def note(self) -> Dict[str, str]:
        """What `from_note` makes the same segmenter from."""
        return {"kind": self.kind, "dictionary": self.dictionary, "width": self.width}


class PathSegmenter(Segmenter):
    """Cuts text along the best path of dictionary words.

    Args:
        counts: of the words, at least one above 0.
        kind: a name in `RULES`, see the head of this file.
        tokens: for kind "length": what may be one token; for kind "words" these are its words. Pieces of the path that
            are none are split into characters.
    """

    def __init__(self, counts: Counts, kind: str, tokens: Optional[Container[str]] = None):
        self.kind, self.tokens, self.table = kind, None if RULES[kind].any_token else tokens, RULES[kind].table
        self.counts = self._looked_up(counts)
        if kind == "words":
            self.tokens = self.counts
        self.words = {word: number for number, word in enumerate(self.counts)}
        self.total = sum(self.counts.values())
        numbers = np.fromiter(self.counts.values(), dtype=np.float64, count=len(self.counts))
        scores = RULES[kind].score(list(self.counts), numbers, self.total)
        self.scores = np.append(scores, math.log(1) - math.log(self.total))  # the last: of a character that is no word

    @property
    def dictionary(self) -> str:
        """The words as they are looked up, with their counts."""
        return "".join(f"{word} {count}\n" for word, count in self.counts.items())

    def cut_many(self, texts: Sequence[str], without: Optional[Sequence[Counts]] = None) -> List[List[str]]:
        """Return the tokens of texts.

        Args:
            without: for each text, by how much the counts of some words are lower for it (kind "count").
        """
        changed = None if without is None else [self._lower(counts) for counts in without]
        if kernels.library() and sum(map(len, texts)) >= FEW:
            rows = self._pieces_in_cpp(texts, changed)
        else:
            rows = [self._pieces(text, other) for text, other in zip(texts, changed or itertools.repeat({}))]
        return [split_unknown(row, self.tokens) for row in rows]

    def _looked_up(self, counts: Counts) -> Counts:
        """Return the counts of words in the form in which they are looked up."""
        found: Counts = {}
        for word, count in counts.items():
            word = word.translate(self.table)
            found[word] = found.get(word, 0) + count
        return found

    def _lower(self, counts: Counts) -> Dict[int, float]:
        """Return the scores of words, by their number, whose counts are so much lower."""
        lower = {}
        for word, count in self._looked_up(counts).items():
            if word not in self.counts:
                continue
            rest = self.counts[word] - count
            alone = self.scores[-1] if len(word) == 1 else -math.inf  # a word that is none has no score at all
            lower[self.words[word]] = math.log(rest) - math.log(self.total) if rest > 0 else alone
        return lower

    # --- in C++ ---

    @functools.cached_property
    def _trie(self) -> Tuple[kernels.Fixed, kernels.Fixed, kernels.Fixed]:
        """The words and their scores as `cut_texts` of `cpp/cutting.cc` takes them."""
        lengths = np.fromiter(map(len, self.words), dtype=np.int64, count=len(self.words))
        size = 1 << (2 * int(lengths.sum()) + 2).bit_length()
        keys, numbers = np.full(size, -1, dtype=np.int64), np.full(size, -1, dtype=np.int32)
        characters = _characters("".join(self.words))
        kernels.call("plant_tree", [len(self.words), size], [], [lengths], [characters], [keys], [numbers])
        return kernels.Fixed([keys]), kernels.Fixed([numbers]), kernels.Fixed([self.scores])

    @functools.cached_property
    def _replaced(self) -> np.ndarray:
        """What each character of Unicode is looked up as, int32."""
        replaced = np.arange(UNICODE, dtype=np.int32)
        replaced[list(self.table)] = [ord(value) for value in self.table.values()]
        return replaced

    def _pieces_in_cpp(self, texts: Sequence[str], changed: Optional[List[Dict[int, float]]]) -> List[List[str]]:
        text, lengths = "".join(texts), np.array([len(text) for text in texts], dtype=np.int64)
        characters = _characters(text)
        characters = self._replaced[characters] if self.table else characters
        last, trie, changes, others = np.zeros(len(characters), np.int32), self._trie, [None, None], None
        if changed is not None:
            flat = list(itertools.chain.from_iterable(changed))
            changes = [np.array(part, dtype=np.int64) for part in (list(map(len, changed)), flat)]
            others = np.array([score for scores in changed for score in scores.values()], dtype=np.float64)
        sizes = [len(texts), len(self.words), len(trie[0][0])]
        kernels.call("cut_texts", sizes, [], [lengths], [characters], *trie, changes, [others], [last])
        ends = np.flatnonzero(last) + 1
        places = [0, *ends.tolist()]
        pieces = [text[start:end] for start, end in zip(places, places[1:])]
        rows = np.searchsorted(ends, np.cumsum(lengths), side="right").tolist()
        return [pieces[start:end] for start, end in zip([0, *rows], rows)]

    # --- in Python ---

    @functools.cached_property
    def _starts(self) -> frozenset:
        """What words start with: where none goes on like this, there is nothing longer to look for."""
        return frozenset(word[:end] for word in self.words for end in range(1, len(word)))

    @functools.cached_property
    def _score_list(self) -> List[float]:
        return self.scores.tolist()

    def _pieces(self, text: str, other: Dict[int, float]) -> List[str]:
        looked_up = text.translate(self.table) if self.table else text
        ends = list(_joined(looked_up, self._path(looked_up, other)))
        return [text[start:end] for start, end in zip([0, *ends], ends)]

    def _path(self, text: str, other: Dict[int, float]) -> List[int]:
        """Return, for each place of a text, where the piece that starts there ends.

        Args:
            other: scores of some words, by number, that replace theirs.
        """
        size, words, starts, scores = len(text), self.words, self._starts, self._score_list
        best, ends = [0.0] * (size + 1), [0] * size
        for start in range(size - 1, -1, -1):
            end = end_of_most = start + 1
            piece = text[start:end]
            number = words.get(piece, -1)
            most = other.get(number, scores[number]) + best[end]
            while piece in starts and end < size:
                end += 1
                piece = text[start:end]
                number = words.get(piece)
                if number is not None:
                    score = other.get(number, scores[number]) + best[end]
                    if score >= most:
                        most, end_of_most = score, end
            best[start], ends[start] = most, end_of_most
        return ends


def _joined(text: str, ends: List[int]) -> Iterable[int]:
    """Yield where the pieces of a path end, after letters and digits that stand alone side by side are joined."""
    start, size = 0, len(text)
    while start < size:
        end = ends[start]
        if end == start + 1 and text[start] in LETTERS:
            while end < size and ends[end] == end + 1 and text[end] in LETTERS:
                end += 1
        yield end
        start = end


def _characters(text: str) -> np.ndarray:
    """Return the code points of a text, int32; halves of surrogate pairs are characters like others."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.int32)


def split_unknown(pieces: List[str], tokens: Optional[Container[str]]) -> List[str]:
    """Return pieces of text; those that are not in `tokens` (None: all are) are split into characters."""
    if tokens is None or all(piece in tokens for piece in pieces):
        return pieces
    return [token for piece in pieces for token in ((piece,) if piece in tokens else piece)]


class CharacterSegmenter(Segmenter):
    """Makes each character a token."""

    kind = "characters"

    def cut_many(self, texts: Sequence[str]) -> List[List[str]]:
        """Return the characters of texts."""
        return list(map(list, texts))


class JiebaSegmenter(Segmenter):
    """Cuts text by jieba, see `jieba_words.py`.

    Args:
        dictionary: a user's words, `word [count] [tag]` on each line. where: they come from, for messages.
        half_width: hand jieba half-width characters, as it knows numbers and Latin words in no others; the tokens are
            as they stand in the text.
        hmm: let jieba guess words that are not in its dictionary.

    Raises:
        InputError: jieba is not installed; a line of the dictionary that jieba would not understand.
    """

    kind = "jieba"

    def __init__(self, dictionary: str = "", where: PathLike = "", half_width: bool = False, hmm: bool = True):
        self.dictionary, self.half_width = dictionary, half_width
        self._words = jieba_words.cutter(dictionary, str(where), hmm)

    def cut_many(self, texts: Sequence[str]) -> List[List[str]]:
        """Return the tokens of texts."""
        if not self.half_width:
            return list(map(self._words, texts))
        rows = []
        for text in texts:
            places = [0, *itertools.accumulate(map(len, self._words(text.translate(HALF_WIDTH))))]
            rows.append([text[start:end] for start, end in zip(places, places[1:])])
        return rows


@functools.lru_cache(maxsize=None)
def jieba_counts(least: int) -> Counts:
    """Return the words of jieba's dictionary that count at least so much, and its single characters.

    Raises:
        InputError: jieba is not installed.
    """
    path = Path(jieba_words.jieba().__file__).with_name("dict.txt")
    counts = read_counts(path, itertools.chain.from_iterable(read_lines(path)))
    return {word: count for word, count in counts.items() if count >= least or len(word) == 1}


# --- made from names, dictionaries, vocabularies ---


def make(kind: str, dictionary: str, where: PathLike, tokens: Optional[Container[str]] = None) -> Segmenter:
    """Return a segmenter.

    Args:
        kind, dictionary: as those of a segmenter. where: the dictionary comes from, for messages.
        tokens: of `PathSegmenter`.

    Raises:
        InputError: there is no such kind, or the dictionary has a line that is none.
    """
    if kind == "characters":
        return CharacterSegmenter()
    if kind == "jieba":
        return JiebaSegmenter(dictionary, where)
    if kind not in RULES:
        known = ", ".join(["characters", "jieba", *RULES])
        raise InputError(f"{where}: text is to be cut by {kind!r}; known are {known}")
    return PathSegmenter(read_counts(where, dictionary.split("\n")), kind, tokens)


def along(vocabulary: Vocabulary, counts: Optional[Counts] = None) -> PathSegmenter:
    """Return what cuts text along the words of a vocabulary.

    Args:
        counts: of its words. None: Zipf's law gives them by rank, the most frequent words are taken to come first.
    """
    if counts is None:
        words = (word for word in vocabulary.words if word not in (START, END, UNKNOWN))
        counts = {word: max(1, MOST // rank) for rank, word in enumerate(words, start=1)} or {UNKNOWN: 1}
    return PathSegmenter(counts, "words")


def segmenter_of(vocabulary: Vocabulary) -> Segmenter:
    """Return what cuts raw text as the text of a vocabulary was cut; where nobody knows how, along its words."""
    note = vocabulary.note
    if note is None:
        return along(vocabulary)
    segmenter = make(note["kind"], note["dictionary"], "the note beside the vocabulary", vocabulary.ids)
    segmenter.width = note["width"]
    return segmenter
