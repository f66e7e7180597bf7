"""From tags to words, and how many of them are right.

A token's tag is a type with an ending. `n-B` starts a word of type n, `n-I` goes on with it; a bare `n` is a
word of one token, and so is `n-S`; `n-E` is the last token of a word. The bare tag `O` is no word at all (and
ends the one before). Endings come last, as in LAC; only -B, -I, -E, -S are endings, anything else is part of
the type's name. A token that goes on with a word that is not there (`n-I` or `n-E` after the start, after
another type, or after a word that has ended) starts a new one.

Scores are over words as spans of characters: one counts as found if its first and last character and its type
are right. Precision is the share of the found ones that are right, recall the share of the gold ones that were
found, F1 = 2 · precision · recall / (precision + recall). Sums are over the whole text, not over sentences.
"""

from collections import Counter
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

OUTSIDE = "O"
ENDINGS = ("B", "I", "E", "S")


class Span(NamedTuple):
    """A word: characters start to end (not included) of the text without white space, and its type."""

    start: int
    end: int
    tag: str


def split_tag(name: str) -> Tuple[str, str]:
    """Return type and ending of a tag; the ending is one of `B`, `I`, `E`, `S`, `O`, and `S` for a bare type."""
    if name == OUTSIDE:
        return name, "O"
    kind, dash, ending = name.rpartition("-")
    return (kind, ending) if dash and ending in ENDINGS else (name, "S")


def words_begin(tags: Iterable[str]) -> List[str]:
    """Return tags in the form in which the released models have them: `type-B` where a word begins, else `type-I`.

    Outside of words it is `O-B`, and `-B` for an empty tag, which white space has.
    """
    begun: List[str] = []
    open_kind = None  # the type of the word that may still go on
    for tag in tags:
        kind, ending = split_tag(tag)
        begun.append(f"{kind}-I" if ending in ("I", "E") and kind == open_kind else f"{kind}-B")
        open_kind = kind if ending in ("B", "I") else None
    return begun


def kind_of(begun: str) -> str:
    """Return the type of a tag of a released model, or of `words_begin`: all but its ending of two characters."""
    return begun[:-2]


def all_spans(tokens: Sequence[str], begun: Sequence[str]) -> List[Span]:
    """Return what tokens and the tags of a released model, or of `words_begin`, make up: all characters are in it.

    A word starts where a tag ends in B or S, and at the start of the text. Its type is that of its last token.
    """
    found: List[Span] = []
    place = 0
    for token, tag in zip(tokens, begun):
        start, place = place, place + len(token)
        if tag[-1] in "BS" or not found:
            found.append(Span(start, place, kind_of(tag)))
        else:
            found[-1] = Span(found[-1].start, place, kind_of(tag))
    return found


def spans(tokens: Sequence[str], tags: Sequence[str]) -> List[Span]:
    """Return the words that tokens and their tags make up."""
    return words_of(all_spans(tokens, words_begin(tags)))


def words_of(found: Iterable[Span]) -> List[Span]:
    """Return the spans that are words."""
    return [span for span in found if span.tag != OUTSIDE]


class Figures(NamedTuple):
    """Precision, recall and F1 from 0 to 1, and the number of gold spans, of found ones, and of right ones."""

    precision: float
    recall: float
    f1: float
    gold: int
    found: int
    right: int


def figures(gold: int, found: int, right: int) -> Figures:
    """Return the figures of counts; a share of nothing is 0."""
    precision, recall = right / max(1, found), right / max(1, gold)
    return Figures(precision, recall, 2 * right / max(1, gold + found), gold, found, right)


class Scores(NamedTuple):
    """The figures over all spans, over spans whatever their type (segmentation), and by type."""

    overall: Figures
    segmentation: Figures
    by_tag: Dict[str, Figures]


def score(sentences: Iterable[Tuple[Iterable[Span], Iterable[Span]]]) -> Scores:
    """Compare pairs of gold spans and found spans, one pair for each sentence."""
    gold, found, right = Counter(), Counter(), Counter()
    right_cuts = 0
    for expected, got in sentences:
        expected, got = set(expected), set(got)
        for counter, chosen in ((gold, expected), (found, got), (right, expected & got)):
            counter.update(span.tag for span in chosen)
        right_cuts += len({span[:2] for span in expected} & {span[:2] for span in got})
    counts = [sum(counter.values()) for counter in (gold, found, right)]
    tags = sorted(set(gold) | set(found), key=lambda tag: (-gold[tag], tag))
    return Scores(
        figures(*counts),
        figures(counts[0], counts[1], right_cuts),
        {tag: figures(gold[tag], found[tag], right[tag]) for tag in tags},
    )


def describe(scores: Scores) -> str:
    """Return the scores as a table of lines, in percent."""
    rows = [("all", scores.overall), ("segmentation", scores.segmentation), *scores.by_tag.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  precision  recall      F1    gold   found   right"]
    for name, row in rows:
        shares = f"{100 * row.precision:9.2f}  {100 * row.recall:6.2f}  {100 * row.f1:6.2f}"
        lines.append(f"{name:{width}}  {shares}  {row.gold:6}  {row.found:6}  {row.right:6}")
    return "\n".join(lines)
