"""What a tagger knows of text: how it is cut into tokens, their ids, and what tags say.

Baidu's released models and those trained here are read alike; what differs is in the data, and what `Dictionaries` says
of `released`. A release's folder has

    word.dic        `id<TAB>token`; the token OOV stands for all others
    small_seg.dic   `word count`: the text is cut into its words; the model of mode seg has no use for it, for it each
                    character is a token
    tag.dic         `id<TAB>tag`, for some ids several; the last one names it
    q2b.dic         replacements: `character<TAB>replacement`

and is kept, and written again, in the form of the others, see `lac/model.py`.
"""

import functools
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

from elmo_chinese.text import segmenter as segmenters
from elmo_chinese.text.reading import InputError, PathLike, read_lines
from elmo_chinese.text.segmenter import DIGITS, Counts, PathSegmenter, Segmenter
from elmo_chinese.text.vocabulary import END, START, UNKNOWN, Vocabulary

import numpy as np

from lac.lines import OUTSIDE, Line, Span, count_words, labels_of, spans, to_bio, words_of

# The project's own, wherever it is installed.
TAGS_FILE = Path(__file__).parent / "data" / "tag.dic"
TABLE_FILE = Path(__file__).parent / "conf" / "q2b.dic"
Table = Dict[int, str]

RELEASED_UNKNOWN = "OOV"
# A unigram model of gold words and jieba's, which all together count as much as PRIOR gold ones; and the least count
# that a word of jieba's must have. docs/experiments.md has what was tried.
PRIOR, LEAST_COUNT = 500, 4


class Sentence(NamedTuple):
    """A tagged line: its tokens, tags for them if it is to be trained on, and its gold words."""

    words: List[str]
    tags: List[str]
    gold: List[Span]


def plain_first(ids: Dict[str, int], table: Table) -> Callable[[str], Optional[int]]:
    """Return the function token → id for a biLM, which was trained on text as it stands, or on replaced characters.

    Tokens are looked up as they stand; if that form is unknown, after replacing all characters but digits, which the
    table may have as one; and then those too.
    """
    all_but_digits = {**table, **{digit: str(unicodedata.digit(chr(digit))) for digit in DIGITS}}
    return lambda token: ids.get(token, ids.get(token.translate(all_but_digits), ids.get(token.translate(table))))


_along = functools.lru_cache(maxsize=8)(segmenters.along)  # by vocabulary; each is made once


def last_known_piece(vocabulary: Vocabulary, table: Table) -> Callable[[str], int]:
    """Return the function token → id in a biLM's vocabulary, whose words may be cut otherwise than the tokens.

    A token that the biLM does not know (`plain_first`) is cut along its words, and stands there as the last piece that
    it knows, for the head of a Chinese word is at its end; `<UNK>` is left where it knows none. With a biLM on jieba's
    words 9 % of the tokens were `<UNK>`, and 1.3 % so; docs/experiments.md has what that gains.
    """
    look_up = plain_first(vocabulary.ids, table)

    def known(token: str) -> int:
        number = look_up(token)
        if number is None:
            (pieces,) = _along(vocabulary).cut_many([token])
            number = next((one for one in map(look_up, reversed(pieces)) if one is not None), vocabulary.unknown)
        return number

    return known


class Dictionaries:
    """What it takes to read text as a model does.

    Args:
        words: of the word embedding, by id. tags: by id. table: replacements before words are looked up.
        segmenter: text → tokens.
        released: of Baidu's models, or trained on from one. Their tags say where words begin as they stand; every
            character is in a word, and white space is tagged like all else; of the tokens only those of one character
            are replaced before they are looked up. Other models' tags are made BIO tags (`lac.lines.to_bio`), white
            space is not shown to the network, and all tokens are replaced, or if that is unknown looked up as they are.
        weight: how much a word of the training lines adds to its count in the segmenter's dictionary, 0 if nothing.
            None: the words do not come from the training lines.

    Raises:
        InputError: there is no word for unknown ones.
    """

    def __init__(
        self,
        words: Sequence[str],
        tags: Sequence[str],
        table: Table,
        segmenter: Segmenter,
        released: bool = False,
        weight: Optional[int] = None,
    ):
        self.words, self.tags, self.table = list(words), list(tags), table
        self.segmenter, self.weight = segmenter, weight
        self.released, self.size, unknown = released, len(words), RELEASED_UNKNOWN if released else UNKNOWN
        self.tag_ids = {tag: number for number, tag in enumerate(tags)}
        ids = {word: number for number, word in enumerate(words)}
        if unknown not in ids or len(ids) != self.size:
            raise InputError(f"{self.size} words, {len(ids)} different ones; {unknown} must be one of them")
        self.unknown = ids[unknown]
        # Function token → id, None if it has none.
        self.look_up = lambda token: ids.get(token.translate(table), ids.get(token))
        if released:
            self.look_up = {**ids, **{chr(one): ids.get(other) for one, other in table.items()}}.get

    @property
    def typed(self) -> bool:
        """Whether words have types; without, the model only cuts."""
        return self.labels != [""]

    @property
    def labels(self) -> List[str]:
        """The types of words."""
        return [label for label in labels_of(self.tags) if label != OUTSIDE or not self.released]

    def word_ids(self, tokens: Iterable[str]) -> np.ndarray:
        """Return the ids of tokens, int64."""
        found = map(self.look_up, tokens)
        return np.array([self.unknown if number is None else number for number in found], dtype=np.int64)

    def for_other_lines(self) -> "Dictionaries":
        """Return the same for a model that is trained on other lines than those that these were made from."""
        return Dictionaries(self.words, self.tags, self.table, self.segmenter, self.released)

    # --- tagged lines ---

    def training_sentences(self, lines: Sequence[Line]) -> List[Sentence]:
        """Return lines as the model learns from them: cut at the ends of words too, with a tag for each token.

        Words of its own training lines are cut as if the line had not been counted; else it would not learn what to do
        where text is cut wrongly, as text that nobody has counted is.

        Raises:
            InputError: the tag set has no tags for a word of several tokens.
        """
        texts = [line.text for line in lines]
        if self.weight:
            lower = [{word: self.weight * count for word, count in count_words([line]).items()} for line in lines]
            cut = self.segmenter.cut_many(texts, lower)
        else:
            cut = self.segmenter.cut_many(texts)
        return [self._training_sentence(line, tokens) for line, tokens in zip(lines, cut)]

    def _training_sentence(self, line: Line, cut: List[str]) -> Sentence:
        tokens, tags, rest = [], [], iter(cut)
        token = ""
        for word, label in line.words:
            pieces, missing = [], word
            while missing:
                token = token or next(rest)
                pieces.append(token[: len(missing)])
                token, missing = token[len(missing) :], missing[len(pieces[-1]) :]
            pieces = segmenters.split_unknown(pieces, self.segmenter.tokens)
            tokens += pieces
            tags += self._spelled(line, word, label, len(pieces))
        return Sentence(tokens, tags, line.gold)

    def _spelled(self, line: Line, word: str, label: str, tokens: int) -> List[str]:
        """Return the tags of a word of so many tokens."""
        if label == OUTSIDE:
            return [OUTSIDE] * tokens
        first, inner, last = (f"{label}-{ending}" for ending in "BIE")
        last = last if last in self.tag_ids else inner
        alone = next((tag for tag in (label, f"{label}-S", first) if tag in self.tag_ids), first)
        spelled = [alone] if tokens == 1 else [first, *[inner] * (tokens - 2), last]
        lacking = next((tag for tag in spelled if tag not in self.tag_ids), None)
        if lacking:
            raise InputError(f"{line.where}: {word!r} is {tokens} tokens, but the tag set has no {lacking}; add it")
        return spelled

    def held_out_sentences(self, lines: Sequence[Line]) -> List[Sentence]:
        """Return lines as the model would get their text; they have no tags."""
        cut = self.segmenter.cut_many([line.text for line in lines])
        return [Sentence(tokens, [], line.gold) for line, tokens in zip(lines, cut)]

    def spans(self, tokens: Sequence[str], tag_ids: Iterable[int]) -> List[Span]:
        """Return the words that tokens and their tags make up."""
        return words_of(spans(tokens, self.bio([self.tags[number] for number in tag_ids])))

    def bio(self, tags: List[str]) -> List[str]:
        """Return tags that say where words begin, see `lac.lines.to_bio`."""
        return tags if self.released else to_bio(tags)

    # --- files ---

    def info(self) -> Dict[str, Any]:
        """Return what `restore` wants besides words, tags, replacements and the segmenter's dictionary."""
        return {"segmenter": self.segmenter.kind, "released": self.released, "weight": self.weight}


def restore(
    info: Dict[str, Any], words: Sequence[str], tags: Sequence[str], table: Table, dictionary: str, where: Path
) -> Dictionaries:
    """Return the dictionaries of a model's folder, `where`.

    Args:
        info: of `Dictionaries.info`. dictionary: of the segmenter.

    Raises:
        InputError: they do not belong together, or the dictionary has a line that is none.
    """
    weight = info["weight"]
    if weight is not None and (type(weight) is not int or weight < 0):
        raise InputError(f"{where}: weight must be a whole number of at least 0, found {weight!r}")
    segmenter = segmenters.make(info["segmenter"], dictionary, where, frozenset(words))
    return Dictionaries(words, tags, table, segmenter, info["released"], weight)


# --- files of tags and replacements ---


def read_tags(path: PathLike) -> List[str]:
    """Return the tags of a `tag.dic`, one a line; the line number from 0 is the id.

    Raises:
        InputError: an empty file, a blank line, white space in a tag, a tag that stands there twice.
    """
    names = [line.rstrip("\r") for line in lines_of(path)]
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
    for number, line in enumerate(lines_of(path), start=1):
        columns = line.rstrip("\r").split("\t")
        if columns == [""]:
            continue
        if len(columns) != 2 or len(columns[0]) != 1:
            raise InputError(f"{path}: line {number}: expected a character, a tab and its replacement, found {line!r}")
        if ord(columns[0]) in table:
            raise InputError(f"{path}: line {number}: {columns[0]!r} (U+{ord(columns[0]):04X}) is there already")
        table[ord(columns[0])] = columns[1]
    return table


# --- made from training lines ---


def build_vocabulary(sentences: Iterable[Sentence], table: Table) -> List[str]:
    """Return the specials, and the tokens of sentences as they are looked up, the most frequent first."""
    specials = [START, END, UNKNOWN]
    counts = Counter(word.translate(table) for sentence in sentences for word in sentence.words)
    words = sorted((word for word in counts if word.strip()), key=lambda word: (-counts[word], word))
    return specials + [word for word in words if word not in specials]


def mix(gold: Counts, general: Counts) -> "tuple[Counts, int]":
    """Return the counts of a unigram model of gold words and general ones, and how much a gold one counts."""
    weight = max(1, round(sum(general.values()) / PRIOR))
    counts = dict(general)
    for word, count in gold.items():
        counts[word] = counts.get(word, 0) + weight * count
    return counts, weight


def from_lines(
    lines: Sequence[Line], tags: Sequence[str], table: Table, words: Optional[Sequence[str]] = None
) -> Dictionaries:
    """Return the dictionaries of a new model.

    Args:
        lines: to be trained on.
        table: replacements; all digits become one besides, as they are for the segmenter.
        words: of the word embedding; None: the tokens of the lines.

    Raises:
        InputError: jieba, whose dictionary it takes, is not installed.
    """
    counts, weight = mix(count_words(lines), segmenters.jieba_counts(LEAST_COUNT))
    segmenter, table = PathSegmenter(counts, "count"), {**table, **DIGITS}
    if words is None:
        bare = Dictionaries([UNKNOWN], tags, table, segmenter, False, weight)
        words = build_vocabulary(bare.training_sentences(lines), table)
    return Dictionaries(words, tags, table, segmenter, False, weight)


# --- of a release ---


def read_release(conf: Path) -> Dictionaries:
    """Return the dictionaries of a released model's folder.

    Raises:
        InputError: a line or a file that cannot be used.
    """
    tags, words, table = _by_id(conf / "tag.dic"), _by_id(conf / "word.dic"), read_table(conf / "q2b.dic")
    if RELEASED_UNKNOWN not in words:
        raise InputError(f"{conf / 'word.dic'}: no token {RELEASED_UNKNOWN} in it")
    path = conf / "small_seg.dic"
    # Tags that say nothing but where words end are those of mode seg.
    kind, dictionary = ("length", "\n".join(lines_of(path))) if any(tag[:-2] for tag in tags) else ("characters", "")
    return Dictionaries(words, tags, table, segmenters.make(kind, dictionary, path, frozenset(words)), True)


def _by_id(path: Path) -> List[str]:
    """Return what lines `id<TAB>text` name, by id; of several lines with an id the last one counts."""
    names = {}
    for number, line in enumerate(lines_of(path), start=1):
        row = line.rstrip("\r").split("\t")
        if row == [""]:
            continue
        if len(row) != 2 or not row[0].isdecimal():
            raise InputError(f"{path}: line {number}: expected `id<TAB>text`, found {line[:60]!r}")
        names[int(row[0])] = row[1]
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: the ids are not 0 to {len(names) - 1}")
    return [names[number] for number in range(len(names))]


def lines_of(path: PathLike) -> List[str]:
    """Return the lines of a file of words or tags; one of them may be a blank."""
    return [line for block in read_lines(path) for line in block]
