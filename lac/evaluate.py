"""Score a tagger on tagged lines.

    python -m lac.evaluate --model lac_model --test_data lac/data/dev.txt

Prints precision, recall and F1 over words as spans of characters, of all of them, of segmentation alone, and of
each tag (`lac/scores.py`). `--json` prints the same as one line of JSON.
"""

import argparse
import json
import sys

from elmo_chinese.command import command
from elmo_chinese.training.flags import Parser

import paddle

from lac import model as tagging
from lac.release import load_any
from lac.scores import describe


def as_json(scores, skipped):
    """Return the scores as one line of JSON."""
    rows = {"overall": scores.overall, "segmentation": scores.segmentation}
    tags = {tag: row._asdict() for tag, row in scores.by_tag.items()}
    record = {**{name: row._asdict() for name, row in rows.items()}, "by_tag": tags, "skipped_lines": skipped}
    return json.dumps(record, ensure_ascii=False)


def evaluate(options):
    """Print the scores."""
    model = load_any(options.model)
    sentences, problems, missed = tagging.read_held_out(model.text, options.test_data, options.on_bad_line)
    for count, what in ((len(problems), "lines skipped"), (missed, "gold words of types that the model lacks: missed")):
        if count:
            print(f"warning: {count} {what}", file=sys.stderr)
    scores = tagging.score_model(model, sentences)
    print(as_json(scores, len(problems)) if options.json else describe(scores))


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        required=True,
        help="folder of lac.train, lac.export or a released model; or lac, seg: the released ones",
    )
    parser.add_argument("--test_data", nargs="+", required=True, help="tagged lines: files, folders or glob patterns")
    parser.add_argument("--on_bad_line", choices=["error", "skip"], default="error", help="default: error")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(prints_result=True):
        paddle.set_device("gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu")
        evaluate(options)


if __name__ == "__main__":
    main()
