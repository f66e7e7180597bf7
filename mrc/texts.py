"""From a text to its words, and between places of characters and places of words; and JSON that a user wrote."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.text.corpus.sentences import WIDTHS, split_sentences
from elmo_chinese.text.jieba_words import cutter
from elmo_chinese.text.reading import INVISIBLE, LINE_ENDS, read_lines

import numpy as np

HALF_WIDTH = WIDTHS["half"]
SENTENCE_BREAKS = re.compile("|".join(["\n", *LINE_ENDS]))


class Text(NamedTuple):
    """A text and its words.

    Attributes:
        text: as it was given. words: as they stand there, without white space and what has no width.
        starts, ends: the place of each word in the text, int64 `[words]`; an end is not included.
        sentences: the number of words of each sentence.
    """

    text: str
    words: List[str]
    starts: np.ndarray
    ends: np.ndarray
    sentences: List[int]

    def piece(self, first: int, last: int) -> str:
        """Return the text from the first to the last of some words."""
        return self.text[self.starts[first] : self.ends[last]]


def blank(text: str) -> bool:
    """Say whether there is nothing to be seen in a text."""
    return not INVISIBLE.sub("", text).strip()


def _sentence_starts(text: str) -> List[int]:
    """Return where the sentences of a text start; lines end them too."""
    starts, place = [], 0
    for line in re.split(SENTENCE_BREAKS, text):
        for sentence in split_sentences(line):
            place = text.index(sentence, place)
            starts.append(place)
            place += len(sentence)
    return starts


def _text(text: str, words: List[str], starts: Sequence[int], sentence_starts: Sequence[int]) -> Text:
    starts = np.array(starts, dtype=np.int64)
    sentences = np.searchsorted(np.array(sentence_starts, dtype=np.int64), starts, side="right")
    counts = np.unique(sentences, return_counts=True)[1].tolist()
    return Text(text, words, starts, starts + [len(word) for word in words] if words else starts, counts)


def cut(text: str) -> Text:
    """Return a text with its words as jieba's dictionary cuts each sentence of it in half-width characters.

    jieba's guess at words that are not in its dictionary (`HMM`) is left out: names that nobody knows become
    characters, which both the reader and its biLM know.
    """
    narrow, sentence_starts = text.translate(HALF_WIDTH), _sentence_starts(text)
    words, starts, tokens = [], [], cutter(hmm=False)
    for place, end in zip(sentence_starts, [*sentence_starts[1:], len(text)]):
        for word in tokens(narrow[place:end]):
            if not blank(word):
                words.append(text[place : place + len(word)])
                starts.append(place)
            place += len(word)
    return _text(text, words, starts, sentence_starts)


def segmented(words: List[str], text: Optional[str] = None) -> Text:
    """Return a text that is cut already; where its words do not stand in it one after the other, they are the text."""
    starts, place = [], 0
    for word in words:
        place = -1 if text is None else text.find(word, place)
        if place < 0:
            text = "".join(words)
            starts = np.cumsum([0] + [len(word) for word in words])[:-1].tolist()
            break
        starts.append(place)
        place += len(word)
    return _text(text or "", words, starts, _sentence_starts(text or ""))


def part(text: Text, first: int, last: int) -> Text:
    """Return a text with the words from `first` to `last` (not included) alone; what it was cut from stays."""
    sentences = np.diff(np.clip(np.cumsum([0, *text.sentences]), first, last)).tolist()
    some = slice(first, last)
    return Text(text.text, text.words[some], text.starts[some], text.ends[some], [n for n in sentences if n])


def limit(text: Text, most: int) -> Text:
    """Return a text with at most so many words."""
    return text if len(text.words) <= most else part(text, 0, most)


def windows(text: Text, most: int) -> List[Text]:
    """Return a text in parts of at most `most` words, one after the other; they end where sentences do.

    Only in a sentence of more than `most` words they end within.
    """
    ends, bounds = np.cumsum(text.sentences), [0]
    while bounds[-1] < len(text.words):
        farthest = min(bounds[-1] + most, len(text.words))
        end = ends[max(0, np.searchsorted(ends, farthest, side="right") - 1)]
        bounds.append(int(end) if bounds[-1] < end <= farthest else farthest)
    return [part(text, first, last) for first, last in zip(bounds, bounds[1:])] or [text]


def words_around(text: Text, start: int, end: int) -> Optional[Tuple[int, int]]:
    """Return the first and last of the fewest words that hold the characters from start to end (not included).

    None if they reach beyond the words that there are.
    """
    first = int(np.searchsorted(text.ends, start, side="right"))
    last = int(np.searchsorted(text.starts, end, side="left")) - 1
    if first > last or text.ends[-1] < end and not blank(text.text[text.ends[-1] : end]):
        return None
    return first, last


def nearest(text: str, answer: str, start: int) -> int:
    """Return where an answer stands in a text, the place nearest to `start` if there are several; -1 for nowhere."""
    if text[start : start + len(answer)] == answer and start >= 0:
        return start
    places = (match.start() for match in re.finditer(f"(?={re.escape(answer)})", text))
    return min(places, key=lambda place: abs(place - start), default=-1)


def recall(words: Iterable[str], wanted: Sequence[str]) -> float:
    """Return the share of the wanted words that are among some words, each counted as often as it stands there."""
    return sum((Counter(words) & Counter(wanted)).values()) / max(1, len(wanted))


def most_related(paragraphs: Sequence[Sequence[str]], wanted: Sequence[str]) -> int:
    """Return the number of the paragraph with the highest recall of the wanted words, of equals the shorter one."""
    return min(range(len(paragraphs)), key=lambda n: (-recall(paragraphs[n], wanted), len(paragraphs[n])))


def best_span(words: Sequence[str], answer: Sequence[str]) -> Tuple[float, int, int]:
    """Return the run of words with the best F1 against an answer: `(f1, first, last)`; it begins at an answer's word.

    F1 is over words, each counted as often as it stands there; of equals the first, and the shorter one. `(0, 0, 0)`
    if no word of the answer is there.
    """
    wanted, best = Counter(answer), (0.0, 0, 0)
    for first, word in enumerate(words):
        if word not in wanted:
            continue
        left, common = wanted.copy(), 0
        for last in range(first, len(words)):
            length = last - first + 1
            if length > len(answer) and 2 * len(answer) / (length + len(answer)) <= best[0]:
                break  # not even with all words of the answer would it, or a longer one, be better
            if left[words[last]] > 0:
                left[words[last]] -= 1
                common += 1
                f1 = 2 * common / (length + len(answer))
                if f1 > best[0]:
                    best = (f1, first, last)
    return best


# --- JSON that a user wrote; `ValueError` says what is wrong ---


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a file; raises what `read_lines` raises."""
    return (line for block in read_lines(path) for line in block)


def parse(text: str, **how: Any) -> Any:
    """Return what a text in JSON says; `how` is handed on to `json.loads`."""
    try:
        return json.loads(text, **how)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text else ""
        raise ValueError(f"not JSON: {place}column {error.colno}: {error.msg}")
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deep")


def get(record: Any, name: str, kind: type, default: Any = None) -> Any:
    """Return what stands under a name; null is as good as nothing, and a number is text, too (an id)."""
    if not isinstance(record, dict):
        raise ValueError(f"expected an object with {name!r}, found {record!r:.60}")
    value = record.get(name, default)
    if value is None:
        value = default
    if kind is str and type(value) is int:
        value = str(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name!r} is {'missing' if name not in record else f'{value!r:.60}'}")
    return sound(value) if kind is str else value


def sound(text: Any) -> str:
    """Return a text that can be written as UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"expected text, found {text!r:.60}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"half of a character (a lone surrogate) in {text!r:.60}")
    return text


def strings(record: Any, name: str, default: Any = None) -> List[str]:
    """Return the list of texts that stands under a name."""
    return [sound(text) for text in get(record, name, list, default)]


def word_rows(record: Any, name: str) -> List[List[str]]:
    """Return the rows of words that stand under a name; a row may be a text with white space between its words."""
    rows = get(record, name, list)
    return [[sound(word) for word in row] if isinstance(row, list) else sound(row).split() for row in rows]
