"""Words and their ids, and counting the words of a text in bounded memory."""

import contextlib
import hashlib
import heapq
import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from elmo_chinese.text.reading import InputError, PathLike, find_files, read_lines, read_sentences

MANY_UNKNOWN = 0.05  # the share from which on the text is not cut as the model's, or is of another kind
START, END, UNKNOWN = "<S>", "</S>", "<UNK>"


def count_words(paths: Union[PathLike, Sequence[PathLike]], limit: int = 2**21) -> Iterator[Tuple[str, int]]:
    """Yield every word of segmented text and its count, in code point order.

    Args:
        paths: see `find_files`.
        limit: words in memory; when there are more (and at most those of one block), they go to a temporary file.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        counts: Counter = Counter()
        spilled: List[Iterable[Tuple[str, int]]] = []
        for path in find_files(paths):
            for block in read_sentences(path):
                counts.update(itertools.chain.from_iterable(block))
                if len(counts) > limit:
                    spilled.append(_spill(sorted(counts.items()), folder, files))
                    counts.clear()
                    if len(spilled) == 64:  # files open at once
                        with files.pop_all():
                            spilled = [_spill(_added_up(spilled), folder, files)]
        yield from _added_up([*spilled, sorted(counts.items())])


def _spill(counts: Iterable[Tuple[str, int]], folder: str, files: contextlib.ExitStack) -> Iterator[Tuple[str, int]]:
    """Write words and counts to a file; return what reads them back. `files` closes it."""
    file = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=folder))
    file.writelines(f"{word} {count}\n" for word, count in counts)
    file.seek(0)
    return ((word, int(count)) for word, count in map(str.split, file))


def _added_up(sources: Iterable[Iterable[Tuple[str, int]]]) -> Iterator[Tuple[str, int]]:
    """Merge sorted counts."""
    for word, group in itertools.groupby(heapq.merge(*sources), key=lambda pair: pair[0]):
        yield word, sum(count for _, count in group)


def note_path(path: PathLike) -> Path:
    """Return where it stands how the text of a vocabulary was cut: `vocabulary.segmenter.json` for `vocabulary.txt`."""
    return Path(path).with_suffix(".segmenter.json")


def read_note(path: Path) -> Optional[Dict[str, str]]:
    """Return how a text was cut, as `Segmenter.note` has it; None if there is no such file, or `null` in it.

    Raises:
        InputError: a file of this name that is something else.
    """
    if not path.exists():
        return None
    try:
        note: Any = json.loads(path.read_text(encoding="utf-8"))
        if note is None:
            return None
        if set(note) == {"kind", "dictionary", "width"} and all(isinstance(value, str) for value in note.values()):
            return note
    except (OSError, ValueError, TypeError):
        pass
    raise InputError(f"{path}: not a note on how text was cut (kind, dictionary, width); move it elsewhere")


class Vocabulary:
    """Words and their ids: the line numbers of a file with one word a line, counted from 0.

    Args:
        path: UTF-8 file with `<S>`, `</S>`, `<UNK>` among its lines. Sampled softmax wants the most
            frequent words first.

    Attributes:
        words: the words by id. size: how many. start, end, unknown: ids of the three specials.
        sha256: of the words, to tell vocabularies apart. text: as a file.
        note: how the text was cut that the words come from, see `read_note`; None: nobody knows.

    Raises:
        InputError: a duplicate, a blank line, a missing special, an empty file.
    """

    def __init__(self, path: PathLike):
        self.words = [line.strip() for block in read_lines(path) for line in block]
        while self.words and not self.words[-1]:
            self.words.pop()
        if not self.words:
            raise InputError(f"{path}: an empty vocabulary; make one with: python preprocess.py vocabulary")
        self.ids: Dict[str, int] = {}
        for number, word in enumerate(self.words):
            if not word:
                raise InputError(
                    f"{path}: line {number + 1} is blank; "
                    "put a word there (deleting the line would shift all later ids)"
                )
            if len(word.split()) > 1:
                raise InputError(
                    f"{path}: line {number + 1} has white space in it: {word[:40]!r}; one word a line is expected, "
                    "without counts (cut -f1 or awk '{print $1}' keeps the first column)"
                )
            if word in self.ids:
                raise InputError(f"{path}: {word!r} stands on line {self.ids[word] + 1} and again on line {number + 1}")
            self.ids[word] = number
        missing = [word for word in (START, END, UNKNOWN) if word not in self.ids]
        if missing:
            raise InputError(f"{path}: no line {' and no line '.join(missing)} (one word a line is expected)")
        self.size = len(self.words)
        self.start, self.end, self.unknown = self.ids[START], self.ids[END], self.ids[UNKNOWN]
        self.note = read_note(note_path(path))
        self.text = "".join(word + "\n" for word in self.words)
        self.sha256 = hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def __len__(self) -> int:
        return self.size

    def __contains__(self, word: object) -> bool:
        return word in self.ids

    def __repr__(self) -> str:
        return f"Vocabulary({self.size} words: {' '.join(self.words[:6])}{' …' if self.size > 6 else ''})"

    def encode(self, words: Iterable[str]) -> List[int]:
        """Return the ids of words, without adding `<S>` or `</S>`; an unknown word becomes `<UNK>`.

        Raises:
            ValueError: it is a string, whose characters would be taken for words.
        """
        if isinstance(words, str):
            raise ValueError(f"a list of words is expected, got the string {words[:40]!r}; cut it: text.split()")
        get, unknown = self.ids.get, self.unknown
        return [get(word, unknown) for word in words]

    def decode(self, ids: Iterable[int]) -> List[str]:
        """Return the words of ids."""
        return [self.words[index] for index in ids]

    @staticmethod
    def build(
        paths: Union[PathLike, Sequence[PathLike]], min_count: int = 1, max_size: Optional[int] = None
    ) -> Tuple[List[str], float]:
        """Count the words of segmented text.

        Args:
            paths: see `find_files`.
            min_count: rarer words are left out (they will be read as `<UNK>`).
            max_size: at most so many words, the three specials included.

        Returns:
            the specials and then the words, most frequent first (ties in code point order), and the share of
            the text's words that is covered.
        """
        specials = [START, END, UNKNOWN]
        common: List[Tuple[int, str]] = []
        total = 0
        for word, count in count_words(paths):
            total += count
            if count >= min_count and word not in specials:
                common.append((-count, word))
                if max_size is not None and len(common) >= 2 * max_size + 2**16:
                    common = heapq.nsmallest(max_size, common)
        room = len(common) if max_size is None else max(0, max_size - len(specials))
        chosen = heapq.nsmallest(room, common)
        return specials + [word for _, word in chosen], -sum(count for count, _ in chosen) / max(1, total)


def unknown_share(unknown: int, words: int, advice: str) -> str:
    """Return how many words of a text are `<UNK>`, in words; where they are many, with what to do."""
    text = f"{unknown:,} of {words:,} words are <UNK> to the language model ({100 * unknown / max(1, words):.2f} %)"
    return f"{text}; {advice}" if unknown > MANY_UNKNOWN * words else text


def vocabulary_from(words: Iterable[str]) -> Vocabulary:
    """Return the vocabulary with these lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.txt"
        path.write_bytes("".join(word + "\n" for word in words).encode("utf-8"))
        return Vocabulary(path)
