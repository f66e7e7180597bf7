"""mrc.evaluate: one line of JSON, the scores of mrc/evaluate.py, and answers that are missing, unknown or none."""

import gzip
import json

import pytest
from conftest import run_python
from test_mrc_questions import dump, line, qa, squad, write

from mrc import evaluate
from mrc.evaluate import score

QUESTIONS = squad(qa("a"), qa("b", text="山东", start=17), qa("c", answers=[]), qa("d", text=" "), qa(5, text="渤海"))
REFERENCES = {"a": "东海", "b": "山东", "5": "渤海"}


def run(capsys, *arguments):
    """Return what mrc.evaluate prints and says, and whether it ended well."""
    code = 0
    try:
        evaluate.main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    printed, said = capsys.readouterr()
    return printed, said, code


@pytest.mark.parametrize(
    "predictions, missing, unknown",
    [
        (REFERENCES, 0, 0),
        ({"a": "东海。", "b": "长江流入东海", "5": ""}, 0, 0),
        ({"5": "渤海", "c": "泰山", "d": ""}, 2, 0),  # c and d have no reference, but are no strangers
        ({"a": "东海", "x": "泰山", "y": "\ud800"}, 2, 2),
        ({}, 3, 0),
    ],
)
def test_one_line_of_json_with_the_scores(tmp_path, capsys, predictions, missing, unknown):
    data, answers = write(tmp_path, QUESTIONS, "data"), write(tmp_path, json.dumps(predictions), "answers")
    printed, said, code = run(capsys, "--data", data, "--predictions", answers)
    assert code == 0 and printed.count("\n") == 1
    expected = score((predictions.get(name, ""), [text]) for name, text in REFERENCES.items())
    counts = {"questions": 3, "missing": missing, "unknown": unknown, "skipped": 0}
    assert json.loads(printed) == {**expected._asdict(), **counts}
    assert (f"{missing} questions have no answer" in said) == bool(missing)
    assert (f"{unknown} answers in {answers} are to no question" in said) == bool(unknown)


def test_files_of_both_forms_packed_with_a_mark_at_the_start_as_a_command(tmp_path):
    data = [write(tmp_path, squad(qa("a")), "a"), write(tmp_path, [line("b", answers=["长江", "东海"]), line(3)], "b")]
    predictions = "\ufeff" + dump({"a": "海", "b": "长江", "3": "东海"}, indent=1)
    answers = write(tmp_path, gzip.compress(predictions.encode("utf-8")), "answers")
    done = run_python("-m", "mrc.evaluate", "--data", *data, "--predictions", answers)
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    rouge = 2.44 * 1 * 0.5 / (0.5 + 1.44)
    expected = dict(rouge_l=(rouge + 2) / 3, bleu_4=0.0, f1=(2 / 3 + 2) / 3, em=2 / 3)
    counts = dict(questions=3, missing=0, unknown=0, skipped=0)
    assert found == pytest.approx({**expected, **counts}) and list(found) == [*expected, *counts]


def test_what_predict_prints_a_line_for_each_question_is_read(tmp_path, capsys):
    lines = [{"id": "a", "answer": "东海", "document": 0, "start": 4, "end": 6, "probability": 0.5}]
    lines += [{"id": "b", "answer": "山", "document": 0}, {"id": 5, "answer": "渤海"}]
    data, answers = write(tmp_path, QUESTIONS, "data"), write(tmp_path, lines, "answers")
    found = json.loads(run(capsys, "--data", data, "--predictions", answers)[0])
    assert (found["questions"], found["missing"], found["em"]) == (3, 0, pytest.approx(2 / 3))
    for more, message in [({"id": "a", "answer": ""}, "two answers to a"), ({"answer": ""}, "'id' is missing")]:
        assert message in run(capsys, "--data", data, "--predictions", write(tmp_path, [*lines, more], "answers"))[1]


def test_a_missing_answer_scores_0_even_where_nothing_is_left_of_a_reference(tmp_path, capsys):
    data = write(tmp_path, squad(qa("a", text="。")))
    found = json.loads(run(capsys, "--data", data, "--predictions", write(tmp_path, "{}", "none"))[0])
    assert [found[name] for name in ("rouge_l", "bleu_4", "f1", "em", "missing")] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "predictions, message",
    [
        ("[]", "answers: expected one JSON object, id → answer, found []"),
        ('"东海"', "answers: expected one JSON object, id → answer, found '东海'"),
        ('{"a": 5}', "answers: the answer to a is 5, not text"),
        ('{"a": null}', "answers: the answer to a is None, not text"),
        ('{"a": {"text": "东海"}}', "answers: the answer to a is {'text': '东海'}, not text"),
        ('{"a": "东海", "a": "长江"}', "answers: there are two answers to a"),
        ('{"\\ud800": 5}', "answers: the answer to \\ud800 is 5, not text"),
        ('{"a": "东海"', "answers: not JSON: column 11: "),
        ('{"a": "东海",\n}', "answers: not JSON: line 2, column 1: "),
        ('{"a": "东海"}\n{"b": "山东"}\n', "answers: not JSON: line 2, column 1: Extra data"),
        ("[" * 100_000, "answers: not JSON that can be read: nested too deep"),
        ("", "answers: not JSON: column 1: "),
        ("东海".encode("gb18030"), "answers: not UTF-8: line 1, byte 0 is 0xb6; convert it"),
    ],
)
def test_predictions_that_are_none(tmp_path, capsys, predictions, message):
    data, answers = write(tmp_path, QUESTIONS, "data"), write(tmp_path, predictions, "answers")
    printed, said, code = run(capsys, "--data", data, "--predictions", answers)
    assert (printed, code) == ("", 1) and message in said and said.count("/answers") == 1, said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "data, answers, message",
    [
        ("data", "nowhere", "cannot read {}/nowhere: No such file"),
        ("data", "", "cannot read {}/: Is a directory"),
        ("nowhere", "answers", "no file matches '{}/nowhere'"),
        ("answers", "answers", "answers: line 1: 'question_id' is missing"),
        ("unanswered", "answers", "unanswered: no question has a reference answer"),
    ],
)
def test_files_that_are_none(tmp_path, capsys, data, answers, message):
    write(tmp_path, QUESTIONS, "data"), write(tmp_path, "{}", "answers")
    write(tmp_path, squad(qa(answers=[]), qa("2", text="\n")), "unanswered")
    printed, said, code = run(capsys, "--data", f"{tmp_path}/{data}", "--predictions", f"{tmp_path}/{answers}")
    assert (printed, code) == ("", 1) and message.format(tmp_path) in said and said.count("\n") == 1, said


def test_what_is_skipped_is_counted(tmp_path, capsys):
    data = write(tmp_path, [line("a"), "{", line("a"), line("b")])
    flags = ["--data", data, "--predictions", write(tmp_path, '{"a": "东海"}', "answers")]
    assert "line 2: not JSON" in run(capsys, *flags)[1]
    found = json.loads(run(capsys, *flags, "--on_bad_line", "skip")[0])
    assert (found["skipped"], found["questions"], found["missing"], found["em"]) == (2, 2, 1, 0.5)
