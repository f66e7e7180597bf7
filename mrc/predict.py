"""Answer questions with pieces of text.

    python -m mrc.predict --question 长江流入哪里 --text 长江发源于青藏高原，流入东海。
    python -m mrc.predict --question 长江流入哪里 < text.txt
    python -m mrc.predict --data questions.json > predictions.json    # for mrc.evaluate
    python -m mrc.predict --data questions.json --format json > answers.jsonl

With --question the answer is looked for in all --text together (each is a document), or in standard input. Printed are
the answer, its place (document, first character, the one after the last; all counted from 0), and its probability: that
of its start times that of its end. A text may be of any length: what has more words than the model reads at once
(--max_passage_len of mrc.train) is read in windows. With --data, a file in SQuAD's or DuReader's form, one JSON object:
id → answer; there longer passages are cut, as in the scores of mrc.train.

--format json prints a line of JSON for each question instead: {"id": …, "answer": …, "document": 0, "start": 8,
"end": 10, "probability": 0.61}; for --question without the id. Of a document with several paragraphs (DuReader's form)
the one that has most words of the question is read; places count from the start of that paragraph.
"""

import argparse
import json
import os
import sys
from typing import Dict, List, Optional

from elmo_chinese.command import OptionError, command
from elmo_chinese.text.reading import read_stdin
from elmo_chinese.training.flags import Parser, positive_int

import paddle

from mrc import model as reading
from mrc.model import Answer, Model
from mrc.questions import CUT_PASSAGES, Found, asked, read, remarks


def as_json(answer: Answer, **more: str) -> str:
    """Return one line of JSON."""
    fields = {"answer" if name == "text" else name: value for name, value in answer._asdict().items()}
    return json.dumps({**more, **fields}, ensure_ascii=False)


def report(found: Found) -> None:
    """Say what was skipped or cut."""
    for text in remarks(found):
        print(f"warning: {text}", file=sys.stderr)
    if found.counts[CUT_PASSAGES]:
        print("mrc.predict --question … --text … (or < file) reads all of a text", file=sys.stderr)


def answer_typed(model: Model, question: str, texts: List[str], form: str) -> None:
    """Print the answer of one question."""
    for text in filter(os.path.isfile, texts):
        raise OptionError(f"--text takes the text itself, and {text} is a file; to read it: mrc.predict … < {text}")
    texts = texts or ["\n".join(line for block in read_stdin() for line in block)]
    found = asked(question, texts, model.limits._replace(passage=sys.maxsize))
    report(found)
    (answer,) = reading.predict(model, found.groups).values()
    if form == "json":
        print(as_json(answer))
    else:
        place = f"document {answer.document}, characters {answer.start} to {answer.end}"
        print(f"{answer.text}\t{place}\tprobability {answer.probability:.3f}")


def answer_files(model: Model, options: argparse.Namespace) -> None:
    """Print the answers of the questions of files."""
    found = read(options.data, model.limits, on_bad_line=options.on_bad_line)
    report(found)
    answers: Dict[str, Answer] = reading.predict(model, found.groups)
    if options.format == "json":
        for name, answer in answers.items():
            print(as_json(answer, id=name))
    else:
        print(json.dumps({name: answer.text for name, answer in answers.items()}, ensure_ascii=False, indent=1))


def predict(options: argparse.Namespace) -> None:
    """Answer what the flags ask."""
    if bool(options.data) == (options.question is not None):
        raise OptionError("give either --question, with --text or standard input, or --data; --help shows examples")
    if options.data and options.text:
        raise OptionError("--text goes with --question; the questions of --data have their own")
    model = reading.load(options.model)
    if options.max_answer_len:
        model = model._replace(limits=model.limits._replace(answer=options.max_answer_len))
    if options.data:
        answer_files(model, options)
    else:
        answer_typed(model, options.question, options.text, options.format)


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="mrc.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mrc_model", help="folder of mrc.train (default: mrc_model)")
    parser.add_argument("--question", help="a question")
    parser.add_argument("--text", nargs="+", default=[], help="what may answer it, each a document")
    parser.add_argument("--data", nargs="+", default=[], help="files of questions: files, folders or glob patterns")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    parser.add_argument("--max_answer_len", type=positive_int, help="words of an answer (default: as it was trained)")
    parser.add_argument("--on_bad_line", choices=["error", "skip"], default="error", help="default: error")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(prints_result=True):
        paddle.set_device("gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu")
        predict(options)


if __name__ == "__main__":
    main()
