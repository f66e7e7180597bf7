"""Split tagged text into lines to train on, lines to choose by, and lines to test with, and clean it.

    python -m lac.corpus --input corpus.txt --output data/pd --dev_lines 1000 --test_lines 2000
    python -m lac.corpus --input mine.txt --dev_input mine_dev.txt --output data/mine

The input is in the format of the People's Daily corpus, or another that `lac/lines.py` knows. OUTPUT gets train.txt,
dev.txt, test.txt (those that were asked for), with brackets and names as one word and without articles' numbers, and
tag.dic: a tag for words of one token, and one for the first and the other tokens of longer ones, of each type. None
of these files is replaced if it is there already.

    input    19980101-01-001-001/m  [中央/n  人民/n  广播/vn  电台/n]nt  记者/n  江/nr  泽民/nr
    output   中央人民广播电台/nt 记者/n 江泽民/nr

How text is cut into tokens is the business of the model (`lac/dictionaries.py`).
"""

import argparse
import os
import sys
from pathlib import Path
from typing import List, NamedTuple

from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.files import lock_folder, write_text
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.flags import Parser

import numpy as np

from lac.lines import OUTSIDE, Line, labels_of, read_gold, tags_of

# What OUTPUT gets.
FILES = ["train.txt", "dev.txt", "test.txt", "tag.dic"]


class Parts(NamedTuple):
    """The lines of each part, in the order of the corpus."""

    train: List[Line]
    dev: List[Line]
    test: List[Line]


def split(lines: List[Line], dev: int, test: int, train: int, seed: int) -> Parts:
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


def as_text(line: Line) -> str:
    """Return the words and types of a line; a bracket that begins text in no word stands alone, and so opens none."""
    words = []
    for word, label in line.words:
        while label == OUTSIDE and word.startswith("[") and len(word) > 1:
            words.append(("[", label))
            word = word[1:]
        words.append((word, label))
    return " ".join(f"{word}/{label}" for word, label in words)


def make(options) -> None:
    """Draw the parts and write the files."""
    folder = Path(options.output)
    with lock_folder(folder, f"another process is writing to {folder}; let it end, or choose another --output"):
        for path in (folder / name for name in FILES):
            if os.path.lexists(path):
                raise InputError(f"{path} is there already and is not replaced; choose another --output, or delete it")
        lines, problems = read_gold(options.input, options.on_bad_line)
        parts = split(lines, options.dev_lines, options.test_lines, options.train_lines, options.seed)
        for name in ("dev", "test"):
            paths = getattr(options, f"{name}_input")
            if paths:
                more, more_problems = read_gold(paths, options.on_bad_line)
                parts = parts._replace(**{name: getattr(parts, name) + more})
                problems += more_problems
        if problems:
            say(f"{len(problems)} lines skipped, the first: {problems[0]}")
        write(parts, folder)


def write(parts: Parts, folder: Path) -> None:
    """Write the lines of each part, and last the tag set."""
    for name, part in parts._asdict().items():
        if part:
            write_text(folder / f"{name}.txt", "".join(as_text(line) + "\n" for line in part))
            say(f"{folder / name}.txt: {len(part)} lines, {sum(len(line.words) for line in part)} words")
    tags = tags_of(parts.train)
    write_text(folder / "tag.dic", "".join(tag + "\n" for tag in tags))
    say(f"{folder / 'tag.dic'}: {len(tags)} tags of {len(labels_of(tags))} types")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def main(arguments=None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
