"""Tag text: cut it into words, with a part of speech or a kind of name for each.

    echo 上海的房价连续四个月保持平稳。 | python -m lac.predict --model lac_model
    python -m lac.predict --model lac_model --format json news.txt more.txt > tagged.jsonl

One line of output for each line of input, in the same order; an empty line stays empty. jieba cuts a line into
tokens, the model tags them and joins those that belong together.

    text    `上海/ns 的/u 房价/n …`; white space of the line is left out
    json    `{"words": ["上海", "的", …], "tags": ["ns", "u", …]}`; the words joined up are the line to the
            character: white space stands among them with the tag ""

White space is never tagged, and no word goes on across it. A token tagged O is given out with that tag.
"""

import runtime  # noqa: F401, I001  first: its settings must be made before Paddle is imported

import argparse
import itertools
import json
import os
import sys
from typing import Iterable, Iterator, List, Sequence, Tuple

import paddle

from checkpoint import CheckpointError
from lac import model as tagging
from lac.corpus import cut
from lac.model import Model
from lac.scores import OUTSIDE, Span, spans
from options import Parser, fail
from reader import InputError, find_files, read_lines

Words = Tuple[List[str], List[str]]  # words and their tags
# So many lines are read and sorted by length at a time; the output follows at once.
LINES_AT_A_TIME = 2048


def join(tokens: Sequence[str], tags: Sequence[str]) -> Words:
    """Return the words that tokens make up, and the tag of each, from a tag for each token.

    Every character of the tokens is in exactly one word, also where the tags make no sense.
    """
    text, places = "".join(tokens), [0, *itertools.accumulate(map(len, tokens))]
    outside = [Span(*place) for place in zip(places, places[1:], tags) if place[2] == OUTSIDE]
    found = sorted([*spans(tokens, tags), *outside])
    return [text[span.start : span.end] for span in found], [span.tag for span in found]


def tag_lines(model: Model, lines: Sequence[str]) -> List[Words]:
    """Return words and tags of lines of raw text; the words of a line joined up are the line."""
    cut_lines = [cut(line) for line in lines]
    tokens = [[token for token in line if not token.isspace()] for line in cut_lines]
    return [_put_back(line, tags) for line, tags in zip(cut_lines, tagging.predict(model, tokens))]


def _put_back(tokens: List[str], tags: List[str]) -> Words:
    """Join tokens to words between the white space, which stays where it is."""
    words, kinds, rest = [], [], iter(tags)
    for blank, group in itertools.groupby(tokens, key=str.isspace):
        group = list(group)
        joined = (group, [""] * len(group)) if blank else join(group, list(itertools.islice(rest, len(group))))
        words += joined[0]
        kinds += joined[1]
    return words, kinds


def as_text(words: Sequence[str], tags: Sequence[str]) -> str:
    """Return `word/tag word/tag …` without the white space."""
    return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags) if tag or not word.isspace())


def as_json(words: Sequence[str], tags: Sequence[str]) -> str:
    """Return one line of JSON."""
    return json.dumps({"words": words, "tags": tags}, ensure_ascii=False)


def input_lines(paths: Sequence[str]) -> Iterator[str]:
    """Yield the lines of files, of standard input if there are none."""
    for path in find_files(paths) if paths else [sys.stdin.fileno()]:
        try:
            for block in read_lines(path):
                yield from block
        except InputError as error:
            raise InputError(str(error) if paths else f"standard input{str(error)[len(str(path)) :]}")


def predict(model: Model, lines: Iterable[str], form: str) -> Iterator[str]:
    """Yield a line of output for each line of text; `form` is "text" or "json"."""
    write, lines = {"text": as_text, "json": as_json}[form], iter(lines)
    while True:
        some = list(itertools.islice(lines, LINES_AT_A_TIME))
        if not some:
            return
        for words, tags in tag_lines(model, some):
            yield write(words, tags)


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="folder of a run of lac.train, of one of its models, or exported"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("files", nargs="*", help="UTF-8 text files; none: standard input")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        paddle.set_device("gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu")
        model = tagging.load(options.model)
        for line in predict(model, input_lines(options.files), options.format):
            sys.stdout.buffer.write(line.encode("utf-8") + b"\n")
        sys.stdout.buffer.flush()
    except (InputError, CheckpointError) as error:
        sys.stdout.buffer.flush()
        fail(error)
    except ImportError:
        fail(InputError("jieba is not installed; pip install -r requirements-cpu.txt"))
    except BrokenPipeError:  # whoever reads has seen enough; keep Python from complaining on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
