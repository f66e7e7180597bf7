"""Tagged lines for a released model: its tokens, and a tag of its own for each.

A line is `word/tag word/tag …`, for a model whose tags are cuts only (mode seg) `word word …`; a line with a tab is
one of this project (`lac/reader.py`), whose words are told by its tags. Types are those of the model.
"""

from typing import Callable, Dict, List, Sequence, Tuple

from lac.dictionaries import Dictionaries
from lac.reader import Sentence, parse_line
from lac.scores import Span, released_kind

Words = List[Tuple[str, str]]  # words and their types


def parser(released: Dictionaries, tags: Sequence[str], cut_at_words: bool) -> Callable[[str], Sentence]:
    """Return the function line → `Sentence`; it raises `ValueError`, which says what is wrong with a line.

    Args:
        tags: of the model, by id.
        cut_at_words: cut tokens that cross the end of a word, and know the types of all words, to train on them. Else
            tokens are those of the text alone, as at prediction, and only the words of the sentence count.
    """
    known = {tag: number for number, tag in enumerate(tags)}

    def parse(line: str) -> Sentence:
        words = _project_line(line) if "\t" in line else _words(line, released.mode == "lac")
        if released.mode == "seg":
            words = [(word, "") for word, _ in words]
        return _sentence(released, known, words, cut_at_words)

    return parse


def _words(line: str, typed: bool) -> Words:
    words = []
    for item in line.split():
        word, slash, kind = item.rpartition("/") if typed else (item, "/", "")
        if not word or (typed and not (slash and kind)):
            raise ValueError(f"expected word/tag, found {item!r}")
        words.append((word, kind))
    return words


def _project_line(line: str) -> Words:
    sentence, words, place = parse_line(line), [], 0
    text = "".join(sentence.words)
    for span in [*sentence.gold, Span(len(text), len(text), "")]:
        if span.start > place:
            raise ValueError(f"{text[place : span.start]!r} is in no word; a released model gives each character one")
        words.append((text[span.start : span.end], span.tag))
        place = span.end
    return words[:-1]


def _sentence(released: Dictionaries, known: Dict[str, int], words: Words, cut_at_words: bool) -> Sentence:
    gold, names, starts, place = [], [], set(), 0
    for word, kind in words:
        gold.append(Span(place, place + len(word), kind))
        names += _names(kind, len(word), released.mode)
        starts.add(place)
        place += len(word)
    unknown = next((name for name in names if name not in known), None)
    if unknown and cut_at_words:
        kinds = sorted({released_kind(name) for name in known} - {""})
        raise ValueError(f"unknown type {released_kind(unknown)!r}; the model has {', '.join(kinds)}")
    tokens, tags, place = [], [], 0
    for token in released.cutter.cut_many(["".join(word for word, _ in words)])[0]:
        crossed = cut_at_words and any(inner in starts for inner in range(place + 1, place + len(token)))
        for piece in token if crossed else [token]:  # what is no token falls into characters, as at prediction
            tokens.append(piece)
            tags.append(names[place])
            place += len(piece)
    return Sentence(tokens, tags, gold)


def _names(kind: str, size: int, mode: str) -> List[str]:
    """Return the tags of a word's characters."""
    if mode == "seg" and size == 1:
        return ["-S"]
    last = "-E" if mode == "seg" else f"{kind}-I"
    return [f"{kind}-B", *[f"{kind}-I"] * (size - 2), *[last][: size - 1]]
