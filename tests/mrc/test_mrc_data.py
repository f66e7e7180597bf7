"""mrc/data: answers stand where the files say, and DuReader's fields are those of the raw ones."""

import json

import pytest
from conftest import ROOT

from mrc.questions import UNEVEN, read
from mrc.texts import cut

DATA = ROOT / "mrc" / "data"
DERIVED = ("segmented_question", "segmented_answers", "answer_docs", "answer_spans", "fake_answers", "match_scores")
DERIVED_OF_DOCUMENTS = ("segmented_title", "segmented_paragraphs", "most_related_para")


def paragraphs(name):
    data = json.loads((DATA / name).read_text(encoding="utf-8"))["data"]
    return [paragraph for article in data for paragraph in article["paragraphs"]]


def records(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def test_answers_stand_where_the_file_says():
    both = [paragraphs(name) for name in ("train.json", "dev.json")]
    for paragraph in sum(both, []):
        for qa in paragraph["qas"]:
            for answer in qa["answers"]:
                assert paragraph["context"][answer["answer_start"] :].startswith(answer["text"]), qa["id"]
    assert [(len(part), sum(len(paragraph["qas"]) for paragraph in part)) for part in both] == [(40, 247), (8, 51)]
    assert len({paragraph["context"] for paragraph in sum(both, [])}) == 48
    asked = [qa["question"] for paragraph in sum(both, []) for qa in paragraph["qas"]]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("name, questions", [("train.json", 247), ("dev.json", 51)])
def test_every_question_can_be_trained_on(name, questions):
    found = read([str(DATA / name)], to_train_on=True)
    assert sum(len(group.questions) for group in found.groups) == questions
    assert not found.problems and {what for what, number in found.counts.items() if number} <= {UNEVEN}


@pytest.mark.parametrize("name, questions", [("train.jsonl", 14), ("dev.jsonl", 4)])
def test_raw_lines_give_what_preprocessed_ones_do(tmp_path, name, questions):
    raw = tmp_path / name
    with open(raw, "w", encoding="utf-8") as file:
        for record in records(name):
            record = {key: value for key, value in record.items() if key not in DERIVED}
            record["documents"] = [
                {key: value for key, value in document.items() if key not in DERIVED_OF_DOCUMENTS}
                for document in record["documents"]
            ]
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    for to_train_on in (True, False):
        given, found = (read([str(path)], to_train_on=to_train_on) for path in (DATA / name, raw))
        assert len(given.groups) == questions and not +given.counts
        assert str(given) == str(found)


@pytest.mark.parametrize("name", ["train.jsonl", "dev.jsonl"])
def test_preprocessed_fields_belong_together(name):
    for record in records(name):
        holder = record["documents"][record["answer_docs"][0]]
        first, last = record["answer_spans"][0]
        words = holder["segmented_paragraphs"][holder["most_related_para"]][first : last + 1]
        assert record["fake_answers"] == ["".join(words)] and record["fake_answers"][0] in record["answers"]
        assert holder["is_selected"] and len(record["documents"]) == 2
        assert record["segmented_question"] == cut(record["question"]).words
        assert record["segmented_answers"] == [cut(answer).words for answer in record["answers"]]
        for document in record["documents"]:
            assert document["segmented_title"] == cut(document["title"]).words
