"""Tagged lines, as people bring them, to words and their types. A line is one of these, told by looking at it:

    People's Daily    `迈向/v  充满/v  希望/n`: with two blanks between words, with an article's number in front
                      (`19980101-01-001-001/m`), which is dropped, or with brackets, `[中央/n 人民/n 电台/n]nt`, which
                      are one word of type nt. A surname and the given name after it (`江/nr 泽民/nr`) are one name.
    words and types   `迈向/v 充满/v 希望/n`, nothing of that kind in it; what `lac.corpus` writes
    words and tags    `中央 电台 迎 新年<TAB>nt-B nt-I v t`: tokens, and a tag for each that says where words begin and
                      go on (below); a token tagged O is in no word
    words alone       `迈向 充满 希望`, for a model that cuts only

How the text is cut into tokens does not depend on them, see `lac/dictionaries.py`.

A token's tag is a label (the type of its word) with an ending. `n-B` begins a word with label n, `n-I` continues it; a
bare `n` is a word of one token, and so is `n-S`; `n-E` is the last token of a word. The bare tag `O` is no word, and
ends the one before. Endings come last, as in LAC; only -B, -I, -E, -S are endings, anything else is part of the label.
A token that continues a word that is not there (`n-I` or `n-E` after the start, after another label, or after a word
that has ended) begins a new one.
"""

import itertools
import re
from collections import Counter
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from elmo_chinese.text.reading import InputError, PathLike, find_files, read_text

OUTSIDE = "O"
ENDINGS = ("B", "I", "E", "S")
Words = List[Tuple[str, str]]  # words and their labels; text in no word has the label O

ARTICLE = re.compile(r"\d{8}-\d\d-\d{3}-\d{3}")
# A word and its type, and behind it the types of the brackets that end there: `电台/n]nt` or `电台/n]/nt`.
TOKEN = re.compile(r"(.+?)/([^/\[\]]+)((?:\]/?[^/\[\]]+)*)")
BRACKET = re.compile(r"\]/?([^/\[\]]+)")
PEOPLES_DAILY = re.compile(rf"^\s*{ARTICLE.pattern}/m(\s|$)|\S\s\s+\S|(^|\s)\[[^/\s]")
# Where tokens stand in words, without types; a B alone may be a type (in some tag sets 区别词).
BARE = re.compile("[BIMESO]*B(I|M*E)[BIMESO]*")
# What tokens look like in whole files of one form: `我/r`, `n/n]nt`; `我_PN`; and the second of two, `B-ORG`.
SLASHED = re.compile(r".+/[A-Za-z][A-Za-z0-9-]*(\]/?[A-Za-z0-9-]+)*")
UNDERSCORED = re.compile(r".+_[A-Z][A-Za-z0-9-]*")
COLUMN_TAG = re.compile(r"O|[BIMES]-\S+|\S+-[BIMES]")
PERSON = "nr"
LONGEST_SURNAME = 2


# --- tags and spans ---


class Span(NamedTuple):
    """A word: characters `start` to `end` (exclusive) of its text, its label, and its weight (None but in mode rank).

    Tagging, scores and output all use lists of these.
    """

    start: int
    end: int
    label: str
    weight: Optional[int] = None


def split_tag(tag: str) -> Tuple[str, str]:
    """Return label and ending of a tag; the ending is one of `B`, `I`, `E`, `S`, `O`, and `S` for a bare label."""
    if tag == OUTSIDE:
        return tag, "O"
    label, dash, ending = tag.rpartition("-")
    return (label, ending) if dash and ending in ENDINGS else (tag, "S")


def to_bio(tags: Iterable[str]) -> List[str]:
    """Return tags as `label-B` where a word begins, else `label-I`, which is how the released models have them.

    Outside of words it is `O-B`, and `-B` for an empty tag, which white space has.
    """
    bio: List[str] = []
    open_label = None  # the label of the word that may still go on
    for tag in tags:
        label, ending = split_tag(tag)
        bio.append(f"{label}-I" if ending in ("I", "E") and label == open_label else f"{label}-B")
        open_label = label if ending in ("B", "I") else None
    return bio


def spans(tokens: Sequence[str], bio: Sequence[str], weights: Optional[Sequence[int]] = None) -> List[Span]:
    """Return the words that tokens make up; all characters are in one.

    A word starts where a tag ends in B or S, and at the start of the text. Its label is that of its last token, its
    weight the largest of its tokens.

    Args:
        bio: tags of `to_bio` or of a released model.
    """
    found: List[Span] = []
    end = 0
    for number, (token, tag) in enumerate(zip(tokens, bio)):
        start, end, weight = end, end + len(token), weights[number] if weights else None
        if found and tag[-1] not in "BS":
            last = found.pop()
            start, weight = last.start, max(last.weight, weight) if weights else None
        found.append(Span(start, end, tag[:-2], weight))
    return found


def words_of(found: Iterable[Span]) -> List[Span]:
    """Return the spans that are words, without the text that is in none."""
    return [span for span in found if span.label != OUTSIDE]


# --- lines ---


class Line(NamedTuple):
    """The gold words of a line, and where it stands: `file: line 3`."""

    words: Words
    where: str

    @property
    def text(self) -> str:
        """The words joined up."""
        return "".join(word for word, _ in self.words)

    @property
    def gold(self) -> List[Span]:
        """The words as spans of characters, without the text that is in none."""
        ends = itertools.accumulate(len(word) for word, _ in self.words)
        return words_of(Span(end - len(word), end, label) for end, (word, label) in zip(ends, self.words))


def parse_line(line: str, typed: bool = True) -> Words:
    """Return the gold words of a line of any form; `ValueError` says what is wrong with it.

    Args:
        typed: False: words have no labels; without a tab the line is words alone.
    """
    if "\t" in line:
        words = parse_tagged(line)
    elif not typed:
        words = [(word, "") for word in line.split()]
    else:
        words = parse_words(line, join=PEOPLES_DAILY.search(line) is not None)
    return words if typed else [(word, "") for word, _ in words]


def parse_words(line: str, join: bool) -> Words:
    """Return the words of a line of words and types, brackets as one word.

    Args:
        join: whether surnames and given names stand apart, and are to be joined.

    Raises:
        ValueError: a token without a type, a bracket that is not opened or not closed.
    """
    words: Words = []
    inside: Words = []  # the words of the bracket that is open; of brackets within brackets the outermost counts
    depth = 0
    for token in line.split():
        while token.startswith("[") and not token.startswith("[/"):
            depth, token = depth + 1, token[1:]
        found = TOKEN.fullmatch(token)
        if not found:
            raise ValueError(f"expected word/type, found {token!r}")
        (inside if depth else words).append((found[1], found[2]))
        for label in BRACKET.findall(found[3]):
            depth -= 1
            if depth < 0:
                raise ValueError(f"`]` without a `[` before it at {token!r}")
            if depth == 0:
                words.append(("".join(word for word, _ in inside), label))
                inside = []
    _check_endings([label for _, label in words])
    ended = next((f"{word}/{label}" for word, label in words if split_tag(label)[0] != label), None)
    if ended:
        raise ValueError(f"expected word/type, found {ended!r}; tokens and their tags go `token token<TAB>tag tag`")
    if depth:
        raise ValueError(f"`[` without a `]` after it at {inside[0][0]!r}")
    if words and ARTICLE.fullmatch(words[0][0]):
        words = words[1:]
    return join_names(words) if join else words


def join_names(words: Words) -> Words:
    """Return the words with each surname and the given name after it as one word of type nr."""
    joined: Words = []
    surname = False  # whether the last word may still take a given name
    for word, label in words:
        if label == PERSON and surname:
            joined[-1] = (joined[-1][0] + word, label)
            surname = False
        else:
            joined.append((word, label))
            surname = label == PERSON and len(word) <= LONGEST_SURNAME
    return joined


def parse_tagged(line: str) -> Words:
    """Return the words of a line of words and tags; `ValueError` says what is wrong with it."""
    fields = line.split("\t")
    tokens, tags = fields[0].split(), fields[1].split()
    typed = next((tag for tag in tags if "/" in tag), None)
    if typed:
        raise ValueError(f"expected tags after the tab, found {typed!r}; put each sentence on a line of its own")
    if len(fields) != 2:
        raise ValueError(f"expected `words<TAB>tags`, found {len(fields)} fields: {line[:60]!r}")
    _check_endings(tags)
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} words, but {len(tags)} tags: {line[:60]!r}")
    if not tokens:
        raise ValueError("no words before the tab")
    text = "".join(tokens)
    return [(text[span.start : span.end], span.label) for span in spans(tokens, to_bio(tags))]


def _check_endings(tags: Sequence[str]) -> None:
    """Raise `ValueError` for tags of other habits, each of which would be taken for a type of its own."""
    if all(len(tag) == 1 for tag in tags) and BARE.fullmatch("".join(tags)):
        raise ValueError(
            f"the tags {' '.join(tags):.40} have no type, which stands before them: `token token<TAB>w-B w-E`, "
            "w being a type that you choose"
        )
    for tag in tags:
        start, dash, rest = tag.partition("-")
        if dash and start in (*ENDINGS, "M") and rest not in ENDINGS or tag.endswith("-M"):
            label = rest if start in (*ENDINGS, "M") else start
            raise ValueError(
                f"the tag {tag!r}: where a token stands in its word is said behind the type, by -B, -I, -E or -S: "
                f"{label}-B {label}-I, each sentence on one line"
            )


def labels_of(tags: Iterable[str]) -> List[str]:
    """Return the types that a tag set has, each once, as they come."""
    return list(dict.fromkeys(split_tag(tag)[0] for tag in tags))


def tags_of(lines: List[Line]) -> List[str]:
    """Return the tag set of gold lines: X, X-B and X-I for each type, the most frequent first, and O if need be."""
    counts = Counter(label for line in lines for _, label in line.words)
    labels = sorted(counts, key=lambda label: (-counts[label], label))
    endings = {OUTSIDE: [""]}
    return [label + ending for label in labels for ending in endings.get(label, ["", "-B", "-I"])]


def read_gold(
    paths: Union[PathLike, Sequence[PathLike]],
    on_bad_line: str = "error",
    typed: bool = True,
    labels: Optional[Sequence[str]] = None,
) -> Tuple[List[Line], List[str]]:
    """Return the lines of tagged files, blank ones left out, and what is wrong with the lines skipped.

    Args:
        paths: see `elmo_chinese.text.reading.find_files`.
        on_bad_line: "error", or "skip" to leave a line out that cannot be used.
        typed: False: words have no labels, and of lines that have some they are dropped.
        labels: the types that may be there, None: any.

    Raises:
        InputError: naming file and line. Or no line of a file can be used, or most are of a form that is not read.
    """
    lines, problems = [], []
    for path in find_files(paths):
        before, rows = len(lines), enumerate(itertools.chain.from_iterable(read_text(path)), start=1)
        rows = [(number, line) for number, line in rows if line.strip()]
        try:
            has_types = _have_types([line for _, line in rows])
        except ValueError as error:
            raise InputError(f"{path}: {error}")
        for number, line in rows:
            try:
                words = parse_line(line.rstrip("\r"), typed or has_types)
                words = words if typed else [(word, "") for word, _ in words]
                if labels is not None:
                    _check_labels(words, labels)
            except ValueError as error:
                problem = f"{path}: line {number}: {error}"
                if on_bad_line == "error":
                    raise InputError(f"{problem} (--on_bad_line skip leaves such lines out)")
                problems.append(problem)
                continue
            if words:
                lines.append(Line(words, f"{path}: line {number}"))
        if len(lines) == before:
            raise InputError(f"{path}: no usable line in it" + (f"; the first: {problems[-1]}" if problems else ""))
    return lines, problems


def _have_types(lines: List[str]) -> bool:
    """Say whether most tokens are `word/type`; `ValueError` names another form of most of them, which is not read."""
    rows = [line.split() for line in lines if "\t" not in line]
    tokens = [token for row in rows for token in row]
    if 2 * sum(len(row) == 2 and COLUMN_TAG.fullmatch(row[1]) is not None for row in rows) > len(rows):
        found = " ".join(rows[0])
        raise ValueError(
            f"lines of one token and its tag ({found!r}); put a sentence on a line: `token token<TAB>tag tag`"
        )
    underscored = [token for token in tokens if UNDERSCORED.fullmatch(token)]
    if 2 * len(underscored) > len(tokens):
        right = "/".join(underscored[0].rsplit("_", 1))
        raise ValueError(f"types behind an underscore ({underscored[0]!r}); put them behind a slash: {right}")
    return 2 * sum(SLASHED.fullmatch(token) is not None for token in tokens) > len(tokens)


def _check_labels(words: Words, labels: Sequence[str]) -> None:
    for word, label in words:
        if label not in labels and label == OUTSIDE:
            raise ValueError(f"{word!r} is in no word; the model gives each character one")
        if label not in labels:
            raise ValueError(f"unknown type {label!r} of word {word!r}; the model has {', '.join(list(labels)[:8])} …")


def count_words(lines: Iterable[Line]) -> Dict[str, int]:
    """Count the gold words of lines; text in no word is none."""
    return Counter(word for line in lines for word, label in line.words if label != OUTSIDE)


def check_gold(lines: Sequence[Line], labels: Sequence[str], where: PathLike) -> int:
    """Return how many gold words are of a type that a model lacks, so that they will count as missed.

    Raises:
        InputError: all of them: the text was tagged with another tag set.
    """
    found = [span.label for line in lines for span in line.gold]
    missed = [label for label in found if label not in labels]
    if found and len(missed) == len(found):
        raise InputError(
            f"{where}: tagged with another tag set than the model's: it has {', '.join(sorted(set(missed))[:8])} …, "
            f"the model {', '.join(sorted(labels)[:8])} …"
        )
    return len(missed)
