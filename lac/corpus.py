"""Make tagged lines for LAC from text in the format of the People's Daily corpus.

    python -m lac.corpus --input corpus.txt --output data/pd --dev_lines 1000 --test_lines 2000
    python -m lac.corpus --input lac/data/gold_train.txt --dev_input lac/data/gold_dev.txt --output lac/data

A line of the input is `迈向/v 充满/v 希望/n`, a name of several words `[中央/n 人民/n 广播/vn 电台/n]nt` (one
word of type nt), and an article's number in front (`19980101-01-001-001/m`) is dropped. A surname and the
given name after it (`江/nr 泽民/nr`) become one name.

OUTPUT gets train.txt, dev.txt, test.txt (those that were asked for) and tag.dic. The text of a line is cut by
jieba, as at prediction, and what a word's tokens are tagged is its type, with -B and -I if there are several:

    gold     中央人民广播电台/nt 迎/v 新年/t
    train    中央 人民 广播 电台 迎 新年 <TAB> nt-B nt-I nt-I nt-I v t
    dev      中央 人民 广播 电台 迎新 年 <TAB> nt-B nt-I nt-I nt-I v t <TAB> 中央人民广播电台/nt 迎/v 新年/t

In training lines a token of jieba's that crosses a gold boundary is cut there, so that every word is a run of
whole tokens. In dev and test lines it is not, because nobody knows the boundary at prediction; so they carry the
gold words as a third field, which is what scores are taken from. A token that crosses a boundary has the tag
of the word that it has most characters of, which matters to nothing.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from elmo_chinese.command import command
from elmo_chinese.cutter import JiebaCutter
from elmo_chinese.files import lock_folder, write_text
from elmo_chinese.metrics import say
from elmo_chinese.text import InputError, find_files, read_lines

import numpy as np

Words = List[Tuple[str, str]]  # (word, type)

ARTICLE = re.compile(r"\d{8}-\d\d-\d{3}-\d{3}")
# A word and its type, and behind it the types of the brackets that end there: `电台/n]nt` or `电台/n]/nt`.
TOKEN = re.compile(r"(.+?)/([^/\[\]]+)((?:\]/?[^/\[\]]+)*)")
BRACKET = re.compile(r"\]/?([^/\[\]]+)")
PERSON = "nr"
LONGEST_SURNAME = 2


def parse_line(line: str) -> Words:
    """Return the gold words of a line, with brackets and names joined to one word.

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
        for kind in BRACKET.findall(found[3]):
            depth -= 1
            if depth < 0:
                raise ValueError(f"`]` without a `[` before it at {token!r}")
            if depth == 0:
                words.append(("".join(word for word, _ in inside), kind))
                inside = []
    if depth:
        raise ValueError(f"`[` without a `]` after it at {inside[0][0]!r}")
    if words and ARTICLE.fullmatch(words[0][0]):
        words = words[1:]
    return join_names(words)


def join_names(words: Words) -> Words:
    """Return the words with each surname and the given name after it as one word of type nr."""
    joined: Words = []
    surname = False  # whether the last word may still take a given name
    for word, kind in words:
        if kind == PERSON and surname:
            joined[-1] = (joined[-1][0] + word, kind)
            surname = False
        else:
            joined.append((word, kind))
            surname = kind == PERSON and len(word) <= LONGEST_SURNAME
    return joined


def ends(pieces: Sequence[str]) -> List[int]:
    """Return where each piece ends in the joined text."""
    return np.cumsum([len(piece) for piece in pieces]).tolist()


def cut(text: str) -> List[str]:
    """Return the tokens of a text as jieba cuts it in half-width characters; joined up they are the text."""
    return JiebaCutter().cut_many([text])[0]


def project(words: Words, tokens: Sequence[str]) -> List[str]:
    """Return the tag of each token: of the gold word it has most characters of, -B, -I where it is not alone."""
    word_ends = ends([word for word, _ in words])
    owners = []
    start = 0
    for end in ends(tokens):
        owner = next(number for number, word_end in enumerate(word_ends) if word_end > start)
        shares: Dict[int, int] = {}
        place = start
        while place < end:
            shares[owner] = min(end, word_ends[owner]) - place
            place, owner = word_ends[owner], owner + 1
        owners.append(max(shares, key=shares.get))
        start = end
    tags = []
    for number, owner in enumerate(owners):
        kind = words[owner][1]
        first = number == 0 or owners[number - 1] != owner
        last = number + 1 == len(owners) or owners[number + 1] != owner
        tags.append(kind if first and last else f"{kind}-B" if first else f"{kind}-I")
    return tags


def training_line(words: Words) -> str:
    """Return the line of `words<TAB>tags` whose tokens lie within the gold words."""
    text = "".join(word for word, _ in words)
    places = sorted({0, *ends(cut(text)), *ends([word for word, _ in words])})
    tokens = [text[start:end] for start, end in zip(places, places[1:])]
    return " ".join(tokens) + "\t" + " ".join(project(words, tokens))


def held_out_line(words: Words) -> str:
    """Return the line of `words<TAB>tags<TAB>gold words` whose tokens are jieba's."""
    tokens = cut("".join(word for word, _ in words))
    gold = " ".join(f"{word}/{kind}" for word, kind in words)
    return "\t".join([" ".join(tokens), " ".join(project(words, tokens)), gold])


def read_corpus(paths: Sequence[str], on_bad_line: str) -> Tuple[List[Words], List[str]]:
    """Return the lines of a corpus, blank ones left out, and what is wrong with those that were skipped."""
    lines, problems = [], []
    for path, number, line in _numbered(paths):
        try:
            words = parse_line(line)
        except ValueError as error:
            problem = f"{path}: line {number}: {error}"
            if on_bad_line == "error":
                raise InputError(f"{problem} (--on_bad_line skip leaves such lines out)")
            problems.append(problem)
            continue
        if words:
            lines.append(words)
    return lines, problems


def _numbered(paths) -> Iterator[Tuple[Path, int, str]]:
    for path in find_files(paths):
        number = 0
        for block in read_lines(path):
            for line in block:
                number += 1
                yield path, number, line


class Parts(NamedTuple):
    """The lines of each part, in the order of the corpus."""

    train: List[Words]
    dev: List[Words]
    test: List[Words]


def split(lines: List[Words], dev: int, test: int, train: int, seed: int) -> Parts:
    """Draw the parts of a corpus: the test part first, so that it depends on `test` and `seed` alone.

    Args:
        dev, test: lines of these parts.
        train: lines for training, 0 for all the rest. Fewer ones are always among more ones.
    """
    if dev + test + max(1, train) > len(lines):
        raise InputError(
            f"the input has {len(lines)} usable lines, too few for {test} test lines, {dev} dev lines and "
            f"{train or 'any'} training lines"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(lines))
    bounds = np.cumsum([test, dev, train or len(lines) - dev - test])
    drawn = np.split(order[: bounds[-1]], bounds[:-1])
    test_lines, dev_lines, train_lines = ([lines[number] for number in sorted(part)] for part in drawn)
    return Parts(train_lines, dev_lines, test_lines)


def tags_of(lines: List[Words]) -> List[str]:
    """Return the tag set of gold lines: X, X-B and X-I for each type, the most frequent type first."""
    counts: Dict[str, int] = {}
    for words in lines:
        for _, kind in words:
            counts[kind] = counts.get(kind, 0) + 1
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return [kind + ending for kind in kinds for ending in ("", "-B", "-I")]


def make(options) -> None:
    """Draw the parts and write the files."""
    lines, problems = read_corpus(options.input, options.on_bad_line)
    parts = split(lines, options.dev_lines, options.test_lines, options.train_lines, options.seed)
    for name in ("dev", "test"):
        paths = getattr(options, f"{name}_input")
        if paths:
            more, more_problems = read_corpus(paths, options.on_bad_line)
            parts = parts._replace(**{name: getattr(parts, name) + more})
            problems += more_problems
    if problems:
        say(f"{len(problems)} lines skipped, the first: {problems[0]}")
    folder = Path(options.output)
    with lock_folder(folder, f"another process is writing to {folder}; let it end, or choose another --output"):
        write(parts, folder)


def write(parts: Parts, folder: Path) -> None:
    """Write the lines of each part, and the tag set."""
    tags = tags_of(parts.train)
    write_text(folder / "tag.dic", "".join(tag + "\n" for tag in tags))
    for name, part in parts._asdict().items():
        if part:
            line = training_line if name == "train" else held_out_line
            write_text(folder / f"{name}.txt", "".join(line(words) + "\n" for words in part))
            say(f"{folder / name}.txt: {len(part)} lines, {sum(map(len, part))} words")
    say(f"{folder / 'tag.dic'}: {len(tags)} tags of {len(tags) // 3} types")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="lac.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="corpus files, folders or glob patterns")
    parser.add_argument("--output", required=True, help="folder for train.txt, dev.txt, test.txt and tag.dic")
    parser.add_argument("--dev_lines", type=_count, default=0, help="lines of the input to hold out for dev.txt")
    parser.add_argument("--test_lines", type=_count, default=0, help="lines of the input to hold out for test.txt")
    parser.add_argument("--train_lines", type=_count, default=0, help="train on so few of the others (default: all)")
    parser.add_argument("--dev_input", nargs="+", help="files that go to dev.txt whole")
    parser.add_argument("--test_input", nargs="+", help="files that go to test.txt whole")
    parser.add_argument("--seed", type=_count, default=0, help="of the draw (default: 0)")
    parser.add_argument("--on_bad_line", choices=["error", "skip"], default="error", help="default: error")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output):
        make(options)


if __name__ == "__main__":
    main()
