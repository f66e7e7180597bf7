"""Tag text: cut it into words, with a part of speech or a kind of name for each.

    echo 上海的房价连续四个月保持平稳。 | python -m lac.predict --model lac_model
    python -m lac.predict --model lac_model --format json news.txt more.txt > tagged.jsonl
    echo 百度是一家高科技公司 | python -m lac.predict --mode lac

Without --model, the models that Baidu released (`lac/release/`). --mode: lac, words and types; seg, words; rank,
words, types and weights from 0 to 3. One line of output for each line of input, in the same order; an empty line
stays empty.

    text    `上海/ns 的/u 房价/n …`, in mode seg without the types, in mode rank with the weight behind a second slash;
            white space of the line is left out
    json    `{"words": ["上海", "的", …], "tags": ["ns", "u", …]}`; the words joined up are the line to the
            character, white space too, without characters of no width; in mode rank with "weights"

White space at the ends of a line is not shown to the model, whose answers it would change; its tag in json is "".

A line is cut into tokens by the model's dictionary; they are tagged, and those that belong together are joined. A model
trained here never tags white space, and no word goes on across it; a token tagged O is given out with that tag.
"""

import argparse
import itertools
import json
import sys
from typing import Iterable, Iterator, List, Sequence

from elmo_chinese.command import command
from elmo_chinese.text.reading import find_files, read_stdin, read_text
from elmo_chinese.training.flags import Parser

import paddle

from lac.lines import Span
from lac.release import MODES
from lac.release.interface import LAC

# So many lines are read and sorted by length at a time; the output follows at once.
LINES_AT_A_TIME = 2048


# What is given out of each word in each mode.
COLUMNS = {"seg": ["words"], "lac": ["words", "tags"], "rank": ["words", "tags", "weights"]}


def as_text(line: str, found: List[Span], mode: str) -> str:
    """Return `word/tag word/tag …` without the white space."""
    rows = ((line[start:end], label, weight)[: len(COLUMNS[mode])] for start, end, label, weight in found)
    return " ".join("/".join(map(str, row)) for row in rows if not row[0].isspace())


def as_json(line: str, found: List[Span], mode: str) -> str:
    """Return one line of JSON."""
    columns = zip(COLUMNS[mode], zip(*((line[start:end], *rest) for start, end, *rest in found)))
    return json.dumps({**{name: [] for name in COLUMNS[mode]}, **dict(columns)}, ensure_ascii=False)


def with_ends(line: str, found: List[Span], mode: str) -> List[Span]:
    """Return a line's words, found without the white space at its ends; each blank there is a word without a tag."""
    first = len(line) - len(line.lstrip())
    last = len(line.rstrip()) if line.strip() else first
    weight = 0 if mode == "rank" else None
    moved = [span._replace(start=span.start + first, end=span.end + first) for span in found]
    before, after = ([Span(n, n + 1, "", weight) for n in ends] for ends in (range(first), range(last, len(line))))
    return before + moved + after


def input_lines(paths: Sequence[str]) -> Iterator[str]:
    """Yield the lines of files, of standard input if there are none."""
    for blocks in map(read_text, find_files(paths)) if paths else [read_stdin()]:
        for block in blocks:
            yield from block


def predict(lac: LAC, lines: Iterable[str], form: str) -> Iterator[str]:
    """Yield a line of output for each line of text; `form` is "text" or "json"."""
    write, lines = {"text": as_text, "json": as_json}[form], iter(lines)
    while True:
        some = list(itertools.islice(lines, LINES_AT_A_TIME))
        if not some:
            return
        for line, found in zip(some, lac.tag([line.strip() for line in some])):
            yield write(line, with_ends(line, found, lac.mode), lac.mode)


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="folder of a run of lac.train, of one of its models, exported, or released; none: the released"
    )
    parser.add_argument(
        "--mode", choices=MODES, default="lac", help="words and types, words, or weights too (default: lac)"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("files", nargs="*", help="UTF-8 text files; none: standard input")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(prints_result=True):
        paddle.set_device("gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu")
        lac = LAC(options.model, options.mode)
        for line in predict(lac, input_lines(options.files), options.format):
            sys.stdout.buffer.write(line.encode("utf-8") + b"\n")


if __name__ == "__main__":
    main()
