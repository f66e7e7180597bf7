"""Score answers against reference answers.

    python -m mrc.predict --model mrc_model --data mrc/data/dev.json > predictions.json
    python -m mrc.evaluate --data mrc/data/dev.json --predictions predictions.json

--data: questions with reference answers, in any form of `mrc/questions.py`; those without are left out. --predictions:
what `mrc.predict --data` printed, a JSON object, id → answer, or a line of JSON for each question. Prints one line of
JSON: the scores (from 0 to 1), of how many questions they are, how many of these have no answer (`missing`: they score
0), and how many answers are to no question of --data (`unknown`: they are not looked at).

Rouge-L    Lin 2004, as DuReader has it: characters without white space, nothing else normalised. Precision and recall
           come from the longest common subsequence, each the largest over the references, taken apart, and
           F = (1 + β²) · precision · recall / (recall + β² · precision) with β = 1.2. Mean over the questions.
BLEU-4     Papineni et al. 2002, the same characters: over all answers together, up to four characters in a row, the
           reference of the closest length (of equals the shorter), no smoothing.
F1         as CMRC 2018 has it: lower case, the marks of `DROPPED` left out, a Chinese character counts as one piece
           and so does a run of others up to white space. Precision and recall come from the longest common run of
           pieces. The best over the references, mean over the questions. (CMRC 2018's own script takes the runs
           apart with NLTK, which also parts them at ASCII signs, brackets and quotes, and English contractions.)
EM         as CMRC 2018 has it: 1 if the answer is a reference to the character, after lower-casing and `DROPPED`; no
           answer, or white space, is never right.

Questions without a reference that is more than white space are left out.
"""

import argparse
import json
import math
import sys
from collections import Counter
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.command import command
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.flags import Parser

from mrc.questions import read
from mrc.texts import get, lines_of, parse

BETA = 1.2
ORDERS = 4
# What CMRC 2018 does not look at; it is not all punctuation: the ASCII comma and full stop stay.
DROPPED = dict.fromkeys(map(ord, "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"))


class Scores(NamedTuple):
    """The scores, and of how many questions they are."""

    rouge_l: float
    bleu_4: float
    f1: float
    em: float
    questions: int


class QuestionScores(NamedTuple):
    """The scores that a single question has."""

    rouge_l: float
    f1: float
    em: float


def common_subsequence(first: str, second: str) -> int:
    """Return the length of the longest common subsequence (Hyyrö 2004: one whole number holds a row of the table)."""
    places: Dict[str, int] = {}
    for place, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << place
    whole = row = (1 << len(first)) - 1
    for character in second:
        matches = row & places.get(character, 0)
        row = (row + matches | row - matches) & whole
    return len(first) - bin(row).count("1")


def common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common piece without gaps."""
    best, row = 0, [0] * (len(second) + 1)
    for one in first:
        row = [0] + [row[place] + 1 if one == other else 0 for place, other in enumerate(second)]
        best = max(best, *row)
    return best


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """Return the Rouge-L of an answer; see above."""
    answer, *references = ("".join(text.split()) for text in [answer, *references])
    common = [common_subsequence(answer, reference) for reference in references]
    precision = max(common) / max(1, len(answer))
    recall = max(length / max(1, len(reference)) for length, reference in zip(common, references))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def pieces(text: str) -> List[str]:
    """Return what CMRC 2018 compares: Chinese characters, and runs of others up to white space."""
    text = text.lower().translate(DROPPED)
    return "".join(f" {c} " if "\u4e00" <= c <= "\u9fa5" else c for c in text).split()


def cmrc_f1(answer: str, references: Sequence[str]) -> float:
    """Return CMRC 2018's F1 of an answer; see above."""
    got, best = pieces(answer), 0.0
    for wanted in map(pieces, references):
        best = max(best, 2 * common_run(got, wanted) / max(1, len(got) + len(wanted)))
    return best


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return whether an answer is one of the references; see above."""
    given = bool(answer.strip())
    answer, *references = (text.lower().strip().translate(DROPPED) for text in [answer, *references])
    return float(given and answer in references)


def question_scores(answer: str, references: Sequence[str]) -> QuestionScores:
    """Return the scores of one answer."""
    return QuestionScores(*(metric(answer, references) for metric in (rouge_l, cmrc_f1, exact_match)))


def _runs(text: str, order: int) -> Counter:
    return Counter(text[place : place + order] for place in range(len(text) - order + 1))


def bleu_4(pairs: Iterable[Tuple[str, Sequence[str]]]) -> float:
    """Return the BLEU-4 of answers, each with its references; see above."""
    right, found, length, wanted = [0] * ORDERS, [0] * ORDERS, 0, 0
    for answer, references in pairs:
        answer, *references = ("".join(text.split()) for text in [answer, *references])
        length += len(answer)
        wanted += min(map(len, references), key=lambda size: (abs(size - len(answer)), size))
        for order in range(1, ORDERS + 1):
            most: Counter = Counter()
            for reference in references:
                most |= _runs(reference, order)
            runs = _runs(answer, order)
            right[order - 1] += sum((runs & most).values())
            found[order - 1] += sum(runs.values())
    if not all(right):
        return 0.0
    brevity = min(0.0, 1 - wanted / length)
    return math.exp(brevity + sum(math.log(ours / all_) for ours, all_ in zip(right, found)) / ORDERS)


def score(pairs: Iterable[Tuple[str, Sequence[str]]]) -> Scores:
    """Return the scores of answers, each with its references.

    Raises:
        ValueError: none of them has a reference.
    """
    pairs = [(answer, [text for text in references if text.strip()]) for answer, references in pairs]
    pairs = [(answer, references) for answer, references in pairs if references]
    if not pairs:
        raise ValueError("no question has a reference answer")
    each = [question_scores(*pair) for pair in pairs]
    rouge, f1, em = (sum(values) / len(pairs) for values in zip(*each))
    return Scores(rouge, bleu_4(pairs), f1, em, len(pairs))


def format_scores(scores: Dict[str, float]) -> str:
    """Return scores as text, in per cent."""
    names = {"rouge_l": "Rouge-L", "bleu_4": "BLEU-4", "f1": "F1", "em": "EM"}
    return "  ".join(f"{shown} {100 * scores[name]:.2f}" for name, shown in names.items())


# --- the command ---


def _once(pairs: Iterable[Tuple[str, Any]]) -> Dict[str, Any]:
    """Return an object of JSON; `ValueError` if it has a name twice, of which `json` would drop one."""
    found: Dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"there are two answers to {name}")
        found[name] = value
    return found


def read_predictions(path: str) -> Dict[str, str]:
    """Return the answers of a file, by id: of one JSON object, or of a line for each with `id` and `answer`.

    Raises:
        InputError: it is neither, an answer is no string, or an id stands there twice.
    """
    text = "\n".join(lines_of(path))
    lines = list(filter(str.strip, text.split("\n")))
    try:
        first = json.loads(lines[0])
    except (ValueError, IndexError, RecursionError):  # an object over many lines, or none
        first = None
    try:
        if isinstance(first, dict) and {"id", "answer"} <= set(first):
            found = _once((get(record, "id", str), record.get("answer")) for record in map(parse, lines))
        else:
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
