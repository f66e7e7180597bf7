"""Score a tagger on tagged lines.

    python -m lac.evaluate --model lac_model --test_data lac/data/dev.txt

Prints precision, recall and F1 over words, of all of them, of segmentation alone, and of each label. `--json` prints
the same as one line of JSON.

Words are compared as spans of characters: one counts as found if its first and last character and its label are right.
Precision is the share of the found ones that are right, recall the share of the gold ones that were found,
F1 = 2 · precision · recall / (precision + recall). Sums are over the whole text, not over sentences.
"""

import argparse
import json
import sys
from collections import Counter
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

from elmo_chinese.command import command
from elmo_chinese.training.flags import Parser

import paddle

from lac.dictionaries import Dictionaries, Sentence
from lac.lines import Span, check_gold, read_gold
from lac.model import Model, encode, predict_ids
from lac.release import load_any

# --- scores ---


class Figures(NamedTuple):
    """Precision, recall and F1 from 0 to 1, and the number of gold spans, of found ones, and of right ones."""

    precision: float
    recall: float
    f1: float
    gold: int
    found: int
    right: int


def figures(gold: int, found: int, right: int) -> Figures:
    """Return the figures of counts; a share of nothing is 0."""
    precision, recall = right / max(1, found), right / max(1, gold)
    return Figures(precision, recall, 2 * right / max(1, gold + found), gold, found, right)


class Scores(NamedTuple):
    """The figures over all spans, over spans whatever their label (segmentation), and by label."""

    overall: Figures
    segmentation: Figures
    by_tag: Dict[str, Figures]


def score(sentences: Iterable[Tuple[Iterable[Span], Iterable[Span]]]) -> Scores:
    """Compare pairs of gold spans and found spans, one pair for each sentence."""
    gold, found, right = Counter(), Counter(), Counter()
    right_cuts = 0
    for expected, got in sentences:
        expected, got = set(expected), set(got)
        for counter, chosen in ((gold, expected), (found, got), (right, expected & got)):
            counter.update(span.label for span in chosen)
        right_cuts += len({span[:2] for span in expected} & {span[:2] for span in got})
    counts = [sum(counter.values()) for counter in (gold, found, right)]
    labels = sorted(set(gold) | set(found), key=lambda label: (-gold[label], label))
    return Scores(
        figures(*counts),
        figures(counts[0], counts[1], right_cuts),
        {label: figures(gold[label], found[label], right[label]) for label in labels},
    )


def describe(scores: Scores) -> str:
    """Return the scores as a table of lines, in percent."""
    rows = [("all", scores.overall), ("segmentation", scores.segmentation), *scores.by_tag.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  precision  recall      F1    gold   found   right"]
    for name, row in rows:
        shares = f"{100 * row.precision:9.2f}  {100 * row.recall:6.2f}  {100 * row.f1:6.2f}"
        lines.append(f"{name:{width}}  {shares}  {row.gold:6}  {row.found:6}  {row.right:6}")
    return "\n".join(lines)


# --- of a model ---


def read_gold_sentences(
    text: Dictionaries, paths: Sequence[str], on_bad_line: str = "error"
) -> Tuple[List[Sentence], List[str], int]:
    """Return the sentences of tagged files, cut as their text would be, and what is wrong with the lines left out.

    Args:
        paths, on_bad_line: see `lac.lines.read_gold`.

    Returns:
        also how many gold words have labels that the tags cannot express.

    Raises:
        InputError: as `read_gold` and `check_gold`.
    """
    lines, problems = read_gold(paths, on_bad_line, text.typed)
    return text.held_out_sentences(lines), problems, check_gold(lines, text.labels, paths[0])


def score_ids(model: Model, sentences: Iterable[Sentence], paths: Iterable[Sequence[int]]) -> Scores:
    """Return the scores of tag ids against the gold words of sentences."""
    return score((sentence.gold, model.text.spans(sentence.words, path)) for sentence, path in zip(sentences, paths))


def score_model(model: Model, sentences: Sequence[Sentence]) -> Scores:
    """Tag sentences and return the scores."""
    return score_ids(model, sentences, predict_ids(model, encode(model, [s.words for s in sentences])))


# --- the command ---


def as_json(scores, skipped):
    """Return the scores as one line of JSON."""
    rows = {"overall": scores.overall, "segmentation": scores.segmentation}
    tags = {tag: row._asdict() for tag, row in scores.by_tag.items()}
    record = {**{name: row._asdict() for name, row in rows.items()}, "by_tag": tags, "skipped_lines": skipped}
    return json.dumps(record, ensure_ascii=False)


def evaluate(options):
    """Print the scores."""
    model = load_any(options.model)
    sentences, problems, missed = read_gold_sentences(model.text, options.test_data, options.on_bad_line)
    for count, what in ((len(problems), "lines skipped"), (missed, "gold words of types that the model lacks: missed")):
        if count:
            print(f"warning: {count} {what}", file=sys.stderr)
    scores = score_model(model, sentences)
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
