"""Bad input of mrc/: an error that names file and place, or a count; never a traceback."""

import gzip

from elmo_chinese.text import InputError

import pytest
from test_mrc_questions import CONTEXT, LATER, dump, line, qa, squad, write

from mrc.questions import CUT_PASSAGES, read, remarks

EMPTY = {"context": " \n", "qas": [{"id": "0"}]}
NESTED = '{"question_id": 9, "documents": ' + "[" * 100_000


def of(documents):
    """Return a question in DuReader's form with these documents."""
    return {"question_id": 1, "question": "谁", "answers": ["东海"], "documents": documents}


BAD = [
    # SQuAD's form
    (dump(squad(qa()))[:-9], "q: not JSON: column [0-9]+: .*; expected one JSON object with data"),
    (dump(squad(qa()), indent=1)[:-9], "q: not JSON: line 2[0-9], column 5: .*; expected one JSON object"),
    (dump(squad(qa())) + "\n{}", "q: not JSON: line 2, column 1: Extra data; expected one JSON object"),
    ('{"data": ' + "[" * 100_000, "q: not JSON that can be read: nested too deep"),
    ("[]", r"q: expected an object with 'data', found \[\]; expected one JSON object"),
    ("\n \n", "q: not JSON: "),
    ('{"data": {}}', "q: 'data' is {}"),
    ({"data": []}, "q: no usable question in it$"),
    ({"data": [None]}, "q: article 1: expected an object with 'paragraphs', found None"),
    ({"data": [{"paragraphs": [3]}]}, "q: paragraph 1: expected an object with 'context', found 3"),
    (squad(qa(), more=[EMPTY, EMPTY]), r"q: paragraph 2: an empty context \(of 0\) \(--on_bad_line skip"),
    (squad(qa(), context=5.0), "q: paragraph 1: 'context' is 5.0"),
    (squad(qa(), 3), "q: paragraph 1, question 2: expected an object with 'id', found 3"),
    (squad(qa(), qa(...)), "q: paragraph 1, question 2: 'id' is missing"),
    (squad(qa(), qa(True)), "q: question True: 'id' is True"),
    (squad(qa(), qa(1)), "q: question 1: there is a question '1' already"),
    (squad(qa(question=" ")), "q: question 1: the question is empty"),
    (squad(qa(question=...)), "q: question 1: 'question' is missing"),
    (squad(qa(answers="东海")), "q: question 1: 'answers' is '东海'"),
    (squad(qa(answers=["东海"])), "q: question 1: expected an object with 'text', found '东海'"),
    (squad(qa(text=None)), "q: question 1: 'text' is None"),
    (squad(qa(start="4")), "q: question 1: 'answer_start' is '4'"),
    (squad(qa(text=" \n")), "q: question 1: no answer to train on"),
    (squad(qa(answers=...)), "q: question 1: no answer to train on"),
    (squad(qa(text=LATER)), f"q: question 1: the answer '{LATER}' does not stand in its context"),
    (squad(qa(text="东海" * 99)), "q: question 1: the answer .{,70} does not stand in its context"),
    (dump(squad(qa())).replace("哪里", "\\ud800"), r"q: question 1: half of a character \(a lone surrogate\)"),
    (dump(squad(qa("\ud800")), indent=1).encode("utf-8", "surrogatepass"), "q: not UTF-8: line 10, byte"),
    (dump(squad(qa())).replace('"1"', '"\\udc80"'), r"q: question \\udc80: half of a character"),
    (dump(squad(qa())).encode("utf-16"), "q: not UTF-8: line 1, byte 0 is 0xff; convert it, e.g. with iconv"),
    ("", "q is empty"),
    (gzip.compress(dump(squad(qa())).encode())[:-9], "q: a damaged packed file"),
    # DuReader's form
    ([line(), dump(line(2))[:-9]], "q: line 2: not JSON: column [0-9]+: "),
    ([dump(line())[:-9], line(2)], "q: line 1: not JSON: column [0-9]+: "),
    ([line(), NESTED], "q: line 2: not JSON that can be read: nested too deep"),
    ([line(), '{"question_id": ' + "1" * 5000 + "}"], "q: line 2: (Exceeds the limit|.question. is missing)"),
    ([line(), []], r"q: line 2: expected an object with 'question_id', found \[\]"),
    ([line(...)], "q: line 1: 'question_id' is missing"),
    ([line(), line("1")], "q: line 2: there is a question '1' already"),
    ([line(documents=())], "q: line 1: question 1: no documents"),
    ([line(documents=([], [" "], ""))], "q: line 1: question 1: only empty documents"),
    ([{"question_id": 1, "question": "谁"}], "q: line 1: 'documents' is missing"),
    ([of(None)], "q: line 1: 'documents' is None"),
    ([of([CONTEXT])], "q: line 1: expected an object with 'paragraphs', found '长江"),
    ([of([{}])], "q: line 1: 'paragraphs' is missing"),
    ([line(documents=[[3]])], "q: line 1: expected text, found 3"),
    ([dump(line()).replace("东海", "\\ud800")], "q: line 1: half of a character"),
    ([line(question="")], "q: line 1: the question is empty"),
    ([line(segmented_question=[])], "q: line 1: the question is empty"),
    ([line(segmented_question=["长", None])], "q: line 1: expected text, found None"),
    ([line(answers="东海")], "q: line 1: 'answers' is '东海'"),
    ([line(answers=[LATER], documents=["长江"] * 5)], "q: no usable question in it; 1 questions left out: no answer"),
    ([line(answers=[])], "q: no usable question in it; 1 questions left out: no answer"),
    ([line(answers=[" "])], "q: no usable question in it; 1 questions left out: no answer"),
    ([line(documents=["的" * 1001 + "东海"])], "q: no usable question in it; 1 questions left out: no answer"),
    ([line(answer_spans=[], answer_docs=[])], "q: no usable question in it; 1 questions left out: no answer"),
    ([line(answer_spans=[[1, 99]], answer_docs=[0])], "q: no usable question in it; 1 questions left out"),
    ([line(answer_spans=[[1, 2]], answer_docs=[7])], "q: no usable question in it; 1 questions left out"),
    ([line(answer_spans=[[1, 2]], answer_docs=["0"])], r"q: line 1: 'answer_docs' is \['0'\]; expected the number"),
    ([line(answer_spans=[[2, 1]], answer_docs=[0])], r"q: line 1: 'answer_spans' is \[\[2, 1\]\]; expected"),
    ([line(answer_spans=[1, 2], answer_docs=[0])], r"q: line 1: 'answer_spans' is \[1, 2\]; expected"),
    ([line(answer_spans=None, answer_docs=[0])], "q: line 1: 'answer_spans' is None"),
    ([line(segmented_answers=[[3]])], "q: line 1: expected text, found 3"),
    ([of([{"paragraphs": ["长"], "segmented_paragraphs": [3]}])], "q: line 1: expected text, found 3"),
    ([{**of([{"paragraphs": ["长"], "most_related_para": "0"}]), "answer_spans": []}], "'most_related_para' is '0'"),
]


@pytest.mark.parametrize("content, message", BAD, ids=[f"{number}: {bad[1]}" for number, bad in enumerate(BAD)])
def test_what_cannot_be_used_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read([write(tmp_path, content, "q")], to_train_on=True)


@pytest.mark.parametrize(
    "content, left, first",
    [
        (squad(qa(), 3, qa(), qa("2"), more=[EMPTY, 3, {"context": CONTEXT, "qas": [qa("3")]}]), "123", "question 2: "),
        ([line(), "{", line(), line(2), line(5, documents=()), line(3)], "123", "line 2: not JSON"),
    ],
)
def test_skipped_is_what_cannot_be_used_and_nothing_else(tmp_path, content, left, first):
    path = write(tmp_path, content, "q")
    found = read([path], to_train_on=True, on_bad_line="skip")
    assert "".join(question.id for group in found.groups for question in group.questions) == left
    number = len(found.problems)
    assert number == (4 if isinstance(content, dict) else 3) and first in found.problems[0]
    assert remarks(found) == [f"{number} entries skipped, the first: {found.problems[0]}"]
    good, bad = write(tmp_path, squad(qa("4")), "good"), write(tmp_path, ["{}", "[]"], "r")
    with pytest.raises(InputError, match="r: no usable question in it; the first problem: .*r: line 1: 'question_id'"):
        read([good, bad], on_bad_line="skip")


@pytest.mark.parametrize(
    "content", [squad(qa(), context="长江流入东海。" * 25_000), [line(documents=["长江。" * 50_000])]]
)
def test_a_passage_of_100_000_words_is_cut_and_said_to_be(tmp_path, content):
    found = read([write(tmp_path, content)])
    assert len(found.groups[0].passages[0].words) == 500 and remarks(found) == [f"1 {CUT_PASSAGES}"]
