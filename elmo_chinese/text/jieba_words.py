"""jieba's words, by rjieba where that gives the same.

rjieba is jieba's algorithm in Rust: about ten times as fast, and without its own dictionary of a user's words. Both
take a text apart into runs of Chinese characters, letters, digits and some signs, and what is between those. They
agree on runs of Chinese characters alone and on what is between. Where letters, digits or signs join a run they do not
always: `_mixed_runs` does there what jieba does. Texts with rare characters, which jieba takes for signs and rjieba for
Chinese, are jieba's.
"""

import functools
import importlib
import itertools
import logging
import re
from typing import Callable, List

from elmo_chinese.text.reading import InputError

RUN = re.compile(r"[\u4E00-\u9FD5a-zA-Z0-9+#&._%\-]+")
NOT_CHINESE = re.compile(r"[a-zA-Z0-9+#&._%\-]")  # of a run
RARE = re.compile("[\ud800-\udfff\u3400-\u4dbf\u9fd6-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
LONGEST_RUN = 2000  # characters that are handed over at once
PARTS = re.compile(r"[\u4E00-\u9FD5]+|[a-zA-Z0-9+#&._%\-]+")  # of a run
# What jieba understands of a user's dictionary; anything else it takes for a word nobody writes.
USER_WORD = re.compile(r"[^\s,，;；]+( \d+)?( [a-zA-Z]+)?")


def jieba():
    """Return the module, which is slow to import; text that is cut by a dictionary does without.

    Raises:
        InputError: it is not installed.
    """
    try:
        module = importlib.import_module("jieba")
    except ImportError:
        raise InputError("jieba is not installed; pip install jieba, or bring text that is segmented already")
    module.setLogLevel(logging.WARNING)
    return module


def rjieba():
    """Return the module, None where it is not installed."""
    try:
        return importlib.import_module("rjieba")
    except ImportError:
        return None


@functools.lru_cache(maxsize=8)
def tokenizer(dictionary: str = "", where: str = ""):
    """Return jieba's tokenizer with its dictionary loaded, and a user's over it; made once in each process.

    Raises:
        InputError: a line of the dictionary, which is from `where`, that jieba would not understand.
    """
    module = jieba()
    if not dictionary:
        module.dt.initialize()
        return module.dt
    lines = [line.strip() for line in dictionary.split("\n")]
    for number, line in enumerate(lines, start=1):
        if line and not USER_WORD.fullmatch(line):
            raise InputError(
                f"{where}: line {number}: expected `word`, `word count` or `word count tag` with single blanks "
                f"between, found {line[:40]!r}"
            )
    own = module.Tokenizer()
    own.load_userdict(lines)
    return own


def bounded(text: str) -> List[str]:
    """Return the text in pieces that jieba cuts in little time; joined up they are the text.

    jieba's cost grows with the square of a run of characters that no sign interrupts. It takes such runs apart itself,
    so that its words are the same but where a run of more than `LONGEST_RUN` is cut.
    """
    if len(text) <= LONGEST_RUN:
        return [text]
    runs = (run.span() for run in RUN.finditer(text) if run.end() - run.start() > LONGEST_RUN)
    places = [place for start, end in runs for place in range(start + LONGEST_RUN, end, LONGEST_RUN)]
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)])]


def cutter(dictionary: str = "", where: str = "", hmm: bool = True) -> Callable[[str], List[str]]:
    """Return the function from a text to its tokens, which joined up are the text.

    Args:
        dictionary, where: of `tokenizer`; with a user's words, jieba cuts everything.
        hmm: let jieba guess words that are not in its dictionary.
    """
    slow, fast = functools.partial(tokenizer(dictionary, where).cut, HMM=hmm), None if dictionary else rjieba()
    mixed = _mixed_runs(fast) if fast and hmm else slow

    def cut(text: str) -> List[str]:
        if len(text) > LONGEST_RUN and len(bounded(text)) > 1:
            return list(itertools.chain.from_iterable(map(cut, bounded(text))))
        if fast is None or RARE.search(text):
            return list(slow(text))
        if not NOT_CHINESE.search(text):
            return fast.cut(text, hmm)
        tokens, place = [], 0
        for run in RUN.finditer(text):
            if NOT_CHINESE.search(run[0]):
                if run.start() > place:
                    tokens += fast.cut(text[place : run.start()], hmm)
                tokens += mixed(run[0])
                place = run.end()
        return tokens + fast.cut(text[place:], hmm) if place < len(text) else tokens

    return cut


def _mixed_runs(fast) -> Callable[[str], List[str]]:
    """Return what cuts a run with letters, digits or signs in it as jieba does.

    jieba takes the best path over its dictionary, joins single characters of it that stand side by side, and guesses
    the words of what is joined. No path crosses from Chinese to letters but by a word that has both: where none is in
    the run, the path of each Chinese part is that of the part alone, which rjieba knows. Runs with such words are
    jieba's.
    """
    own, final = tokenizer(), importlib.import_module("jieba.finalseg")
    with_letters = [re.escape(word) for word, count in own.FREQ.items() if count and NOT_CHINESE.search(word)]
    crossing = re.compile("|".join(sorted(with_letters)))
    guess = functools.lru_cache(maxsize=2**16)(lambda joined: list(final.cut(joined)))  # 2022年 comes again and again

    def singles(joined: str) -> List[str]:
        return list(joined) if len(joined) < 2 or own.FREQ.get(joined) else guess(joined)

    def cut(run: str) -> List[str]:
        if crossing.search(run):
            return list(own.cut(run))
        tokens, joined = [], ""
        for part in PARTS.findall(run):
            for word in part if NOT_CHINESE.match(part) else fast.cut(part, False):
                if len(word) == 1:
                    joined += word
                else:
                    tokens += [*singles(joined), word]
                    joined = ""
        return tokens + singles(joined)

    return cut
