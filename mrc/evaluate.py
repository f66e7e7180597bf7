"""Score answers.

    python -m mrc.predict --model mrc_model --data mrc/data/dev.json > predictions.json
    python -m mrc.evaluate --data mrc/data/dev.json --predictions predictions.json

--data: questions with reference answers, in SQuAD's or DuReader's form; those without are left out. --predictions: a
JSON object, id → answer. Prints one line of JSON: the scores (`mrc/scores.py`, from 0 to 1), of how many questions they
are, how many of these have no answer (`missing`: they score 0), and how many answers are to no question of --data
(`unknown`: they are not looked at).
"""

import argparse
import json
import sys
from typing import Any, Dict, List, Optional, Tuple

from elmo_chinese.command import command
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.flags import Parser

from mrc.questions import read
from mrc.records import lines_of, parse
from mrc.scores import score


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Return an object of JSON; `ValueError` if it has a name twice, of which `json` would drop one."""
    found: Dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"there are two answers to {name}")
        found[name] = value
    return found


def read_predictions(path: str) -> Dict[str, str]:
    """Return the answers of a file, by id.

    Raises:
        InputError: it is no JSON object of strings, or has an id twice.
    """
    text = "\n".join(lines_of(path))
    try:
        found = parse(text, object_pairs_hook=_once)
    except ValueError as error:
        raise InputError(f"{path}: {error}")
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object, id → answer, found {found!r:.60}")
    for name, answer in found.items():
        if not isinstance(answer, str):
            raise InputError(f"{path}: the answer to {name} is {answer!r:.60}, not text")
    return found


def evaluate(options: argparse.Namespace) -> None:
    """Print the scores."""
    found = read(options.data, on_bad_line=options.on_bad_line)
    predictions = read_predictions(options.predictions)
    questions = [one for group in found.groups for one in group.questions]
    wanted = [one for one in questions if any(text.strip() for text in one.references)]
    if not wanted:
        raise InputError(f"{options.data[0]}: no question has a reference answer")
    missing = sum(one.id not in predictions for one in wanted)
    unknown = len(predictions.keys() - {one.id for one in questions})
    if missing:
        print(f"warning: {missing} questions have no answer in {options.predictions}", file=sys.stderr)
    if unknown:
        print(f"warning: {unknown} answers in {options.predictions} are to no question of --data", file=sys.stderr)
    scores = score((predictions.get(one.id, ""), one.references) for one in wanted)
    print(json.dumps({**scores._asdict(), "missing": missing, "unknown": unknown, "skipped": len(found.problems)}))


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="mrc.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="questions: files, folders or glob patterns")
    parser.add_argument("--predictions", required=True, help="JSON, id → answer")
    parser.add_argument("--on_bad_line", choices=["error", "skip"], default="error", help="default: error")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(prints_result=True):
        evaluate(options)


if __name__ == "__main__":
    main()
