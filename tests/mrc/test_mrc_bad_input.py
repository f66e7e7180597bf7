"""Bad input of mrc/: an error that names file and place, or a count; never a traceback."""

import copy
import gzip
import json
import random
from argparse import Namespace
from collections import Counter

from elmo_chinese.command import UserError
from elmo_chinese.text.reading import InputError

import pytest
from conftest import ROOT
from test_mrc_questions import CONTEXT, LATER, dump, line, qa, squad, write

from mrc import evaluate
from mrc import model as reading
from mrc.model import Model
from mrc.network import Reader
from mrc.predict import answer_files
from mrc.questions import CUT_PASSAGES, Limits, read, remarks
from mrc.train import read_groups

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
    (squad(qa(answers=[5])), "q: question 1: expected an object with 'text', found 5"),
    (squad(qa(text=None)), "q: question 1: 'text' is None"),
    (squad(qa(start="4")), "q: question 1: 'answer_start' is '4'"),
    (squad(qa(start=True)), "q: question 1: 'answer_start' is True"),
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


# --- anything at all ---

ODD = [
    *(None, True, 0, -1, 3.5, 10**30, float("nan"), [], {}, [[]], [None], {"text": 3}, [["长", "江"]], [[1, 0]], [7]),
    *("", " \n", "长江", "长 江", "\ud800", "\0", "\u2028", "<UNK>", "x" * 2000, "流入。" * 300),
]
BYTES = [
    *(b"", b"\0", b"\n", b"\r\n", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\ud800", b"\xed\xa0\x80"),
    *("\ufeff".encode(), "\u2028".encode(), "的".encode("gb18030"), "的".encode("utf-16"), b"\xff", b"1" * 5000),
]


def places(value):
    """Yield each object or list within a value of JSON, with each of its names or numbers."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(records, draw):
    """Return records of JSON with one to three random changes."""
    records = copy.deepcopy(records)
    for _ in range(draw.randint(1, 3)):
        (holder, key), (other, theirs) = draw.choices(list(places(records)), k=2)
        kind = draw.random()
        if kind < 0.3 and holder is not records:
            del holder[key]
        elif kind < 0.4 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(draw.choice([other[theirs], draw.choice(ODD)]))
    return records


def broken(content, draw):
    """Return bytes with something cut out of them or put in, mostly without cutting a character."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    end = draw.choice([start, start + 1, start + 8, end])
    while draw.random() < 0.9 and content[start : start + 1] > b"\x7f":
        start += 1
    while draw.random() < 0.9 and content[end : end + 1] > b"\x7f":
        end += 1
    return content[:start] + draw.choice(BYTES) + content[max(start, end) :]


def random_content(name, draw):
    """Return a file of the project's data, some of it, with something wrong."""
    text = (ROOT / "mrc" / "data" / name).read_text(encoding="utf-8")
    if name.endswith("l"):
        records = [json.loads(one) for one in draw.sample(text.splitlines(), 3)]
        if draw.random() < 0.5:  # raw
            for record in records:
                for part in [record, *record["documents"]]:
                    for field in [name for name in part if name.startswith(("segmented_", "answer_", "most_"))]:
                        del part[field]
    else:
        records = json.loads(text)
        records["data"] = draw.sample(records["data"], 2)
    if draw.random() < 0.7:
        records = changed(records, draw)
    lines = records if name.endswith("l") else [records]
    content = "".join(json.dumps(one) + "\n" for one in lines)
    if draw.random() < 0.5:
        content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)
    content = content.encode("utf-8", "surrogatepass")
    return broken(content, draw) if draw.random() < 0.4 else content


def small_model(groups):
    """Return a reader of groups that knows nothing."""
    vocabulary = reading.build_vocabulary(groups, 1)
    network = Reader(vocabulary.size, word_emb_dim=2, hidden_size=2)
    network.eval()
    return Model(network, vocabulary, None, Limits(40, 10, 8))


def attempt(capsys, work, *arguments):
    """Return what a part of a command returns and prints; None twice if it ended with an error that a user is told."""
    capsys.readouterr()
    try:
        return work(*arguments), capsys.readouterr().out
    except UserError as error:
        assert str(error) and "Traceback" not in str(error)
        return None, None


@pytest.mark.parametrize("name", ["dev.json", "dev.jsonl"])
@pytest.mark.parametrize("on_bad_line", ["error", "skip"])
def test_random_changes_end_in_an_error_a_count_or_answers(tmp_path, capsys, name, on_bad_line, times=20, seed=1):
    draw, paths, answers = random.Random(f"{name} {on_bad_line} {seed}"), [str(tmp_path / "data")], tmp_path / "answers"
    options = Namespace(data=paths, on_bad_line=on_bad_line, format="text", predictions=str(answers))
    model = small_model(read([str(ROOT / "mrc" / "data" / name)]).groups)
    outcomes = Counter()
    for _ in range(times):
        (tmp_path / "data").write_bytes(random_content(name, draw))
        groups, _ = attempt(capsys, read_groups, options, paths, model.limits, True)
        for group in groups or ():
            for question in group.questions:
                words = group.passages[question.gold.passage].words
                assert 0 <= question.gold.first <= question.gold.last < len(words) <= model.limits.passage
        small_model(groups or [])
        _, printed = attempt(capsys, answer_files, model, options)
        found = json.loads(printed) if printed else {"?": ""}
        answers.write_text(json.dumps(found), encoding="utf-8")
        _, scored = attempt(capsys, evaluate.evaluate, options)
        assert not scored or json.loads(scored)["missing"] == 0
        answers.write_bytes(broken(json.dumps(changed(found, draw)).encode("utf-8"), draw))
        attempt(capsys, evaluate.evaluate, options)
        outcomes.update(trained=groups is not None, answered=printed is not None, scored=scored is not None)
    assert all(0 < outcomes[what] < times for what in ("trained", "answered", "scored")), outcomes
