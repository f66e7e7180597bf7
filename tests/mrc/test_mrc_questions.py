"""mrc/questions.py: both forms, where answers are, and what is read of several documents."""

import bz2
import copy
import gzip
import itertools
import json
import lzma
import random

from elmo_chinese.text.reading import InputError

import pytest
from test_mrc_texts import f1, random_text, texts

from mrc.questions import (
    CUT_PASSAGES,
    CUT_QUESTIONS,
    LEFT_OUT,
    LONG,
    MORE_DOCUMENTS,
    MOVED,
    UNEVEN,
    Gold,
    Limits,
    asked,
    read,
    remarks,
)
from mrc.texts import blank, cut, recall

CONTEXT = "长江流入东海。黄河流入渤海。泰山在山东。"
WORDS = ["长江", "流入", "东海", "。", "黄河", "流入", "渤海", "。", "泰山", "在", "山东", "。"]
LATER = "不在这里"


def qa(name="1", question="长江流入哪里？", text="东海", start=4, **more):
    """Return a question in SQuAD's form; fields that are `...` are left out."""
    found = {"id": name, "question": question, "answers": [{"text": text, "answer_start": start}], **more}
    return {key: value for key, value in found.items() if value is not ...}


def squad(*qas, context=CONTEXT, more=()):
    return {"version": "x", "data": [{"paragraphs": [{"context": context, "qas": list(qas)}, *more]}]}


def line(name=1, documents=(CONTEXT,), answers=("东海",), **more):
    """Return a raw question in DuReader's form, all its documents selected; fields that are `...` are left out."""
    documents = [{"paragraphs": [text] if isinstance(text, str) else text, "is_selected": True} for text in documents]
    found = {"question_id": name, "question": "长江流入哪里？", "answers": answers, "documents": documents, **more}
    return {key: value for key, value in found.items() if value is not ...}


def dump(record, **how):
    return json.dumps(record, ensure_ascii=False, **how)


def write(folder, content, name="questions"):
    """Write a file, SQuAD's of an object, DuReader's of a list, and return its path."""
    if isinstance(content, dict):
        content = dump(content)
    if isinstance(content, list):
        content = "".join((one if isinstance(one, str) else dump(one)) + "\n" for one in content)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def golds(found):
    return [
        (question.id, group.passages[question.gold.passage].piece(*question.gold[1:]))
        for group in found.groups
        for question in group.questions
    ]


# --- both forms ---


@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"indent": 0}, {"separators": (",", ":")}])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n \n"])
def test_squads_form_however_it_is_written(tmp_path, how, before):
    found = read(
        [write(tmp_path, before + dump(squad(qa(), qa("2", "泰山在哪里？", "山东", 17)), **how))], to_train_on=True
    )
    assert golds(found) == [("1", "东海"), ("2", "山东")] and not found.problems and not +found.counts
    (group,) = found.groups
    assert group.passages[0].words == WORDS and group.documents == [0]
    assert group.questions[0].text.words == ["长江", "流入", "哪里", "？"] and group.questions[0].references == ["东海"]


@pytest.mark.parametrize("before", ["", "\ufeff", "\n \n"])
def test_dureaders_form(tmp_path, before):
    found = read(
        [write(tmp_path, before + dump(line()) + "\n\n" + dump(line("x", answers=["山东"])))], to_train_on=True
    )
    assert golds(found) == [("1", "东海"), ("x", "山东")] and not found.problems and not +found.counts
    assert found.groups[0].passages[0].words == WORDS


@pytest.mark.parametrize("content", [squad(qa()), [line()]])
@pytest.mark.parametrize("pack, ending", [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, "")])
def test_packed_files(tmp_path, content, pack, ending):
    plain = write(tmp_path, content)
    with open(plain, "rb") as file:
        packed = write(tmp_path, pack(file.read()), "packed.json" + ending)
    assert str(read([plain], to_train_on=True)) == str(read([packed], to_train_on=True))


def test_cmrcs_own_form_and_null_for_answers(tmp_path):
    entry = {"context_id": "T_1", "context_text": CONTEXT, "title": "江河", "qas": []}
    entry["qas"] = [
        {"query_id": "T_1_Q_1", "query_text": "长江流入哪里？", "answers": ["东海", "流入东海"]},
        {"query_id": "T_1_Q_2", "query_text": "泰山在哪里？", "answers": ["山东"]},
    ]
    path = write(tmp_path, dump([entry, {**entry, "qas": [{**entry["qas"][0], "query_id": "T_2"}]}], indent=1))
    found = read([path], to_train_on=True)
    assert golds(found) == [("T_1_Q_1", "东海"), ("T_1_Q_2", "山东"), ("T_2", "东海")] and not +found.counts
    assert found.groups[0].questions[0].references == ["东海", "流入东海"]
    entry["qas"] = [{"query_id": 1, "query_text": "谁", "answers": None}]
    for content in (squad(qa(answers=None)), [line(answers=None)], dump([entry])):
        assert read([write(tmp_path, content)]).groups[0].questions[0].references == []


def test_several_files_of_both_forms_are_one(tmp_path):
    paths = [write(tmp_path, squad(qa("a")), "a"), write(tmp_path, [line("b")], "b")]
    assert [name for name, _ in golds(read(paths, to_train_on=True))] == ["a", "b"]
    with pytest.raises(InputError, match="b: line 1: there is a question 'a' already"):
        read([paths[0], write(tmp_path, [line("a")], "b")])


def test_what_is_not_trained_on_needs_no_answer(tmp_path):
    content = squad(qa(), qa("2", text=LATER), qa("3", answers=[]), qa("4", answers=...))
    found = read([write(tmp_path, content)])
    assert [question.references for question in found.groups[0].questions] == [["东海"], [LATER], [], []]
    assert {question.gold for question in found.groups[0].questions} == {None}
    found = read([write(tmp_path, [line(), line(2, answers=...), line(3, answers=[LATER])])])
    assert [group.questions[0].references for group in found.groups] == [["东海"], [], [LATER]]


# --- where answers are: SQuAD's form ---


def test_random_answers_are_the_fewest_words_around_them(tmp_path):
    for number, (draw, context) in enumerate(texts(7, 150)):
        words = cut(context)
        places = [place for place, character in enumerate(context) if not blank(character)]
        if not places:
            continue
        start, last = sorted(draw.choices(places, k=2))
        text = context[start : last + 1]
        content = squad(qa(str(number), "谁", " " + text + "\n", start - 1), context=context)
        found = read([write(tmp_path, content)], Limits(10**6), to_train_on=True)
        gold = found.groups[0].questions[0].gold
        assert gold.passage == 0 and text in words.piece(*gold[1:])
        assert words.starts[gold.first] <= start < words.ends[gold.first]
        assert words.starts[gold.last] <= last < words.ends[gold.last]
        assert found.counts[UNEVEN] == (words.piece(*gold[1:]) != text)
        assert found.counts[MOVED] == found.counts[LEFT_OUT] == 0


@pytest.mark.parametrize(
    "start, moved, expected", [(2, 0, (1, 1)), (9, 0, (5, 5)), (4, 1, (1, 1)), (8, 1, (5, 5)), (..., 0, (1, 1))]
)
def test_an_answer_is_found_again_nearest_to_where_it_should_stand(tmp_path, start, moved, expected):
    answer = {"text": "流入", **({} if start is ... else {"answer_start": start})}
    found = read([write(tmp_path, squad(qa(answers=[answer])))], to_train_on=True)
    assert found.groups[0].questions[0].gold == Gold(0, *expected) and found.counts[MOVED] == moved


def test_what_is_worth_a_remark_is_counted(tmp_path):
    context = CONTEXT + "山东的人很多。"
    qas = [
        qa("even"),
        qa("moved", start=0),
        qa("uneven", text="江流入东", start=1),
        qa("long", text="东海。黄河流入渤", start=4),
        qa("cut question", "长江" * 9),
        qa("beyond", text="人很", start=23),
    ]
    found = read([write(tmp_path, squad(*qas, context=context))], Limits(12, 8, 4), to_train_on=True)
    expected = {MOVED: 1, UNEVEN: 2, LONG: 1, CUT_QUESTIONS: 1, CUT_PASSAGES: 1, LEFT_OUT: 1}
    assert +found.counts == expected and not found.problems
    assert golds(found)[2:4] == [("uneven", "长江流入东海"), ("long", "东海。黄河流入渤海")] and len(golds(found)) == 5
    assert sorted(remarks(found)) == sorted(f"{number} {what}" for what, number in expected.items())


def test_the_first_answer_that_is_more_than_white_space_is_trained_on(tmp_path):
    answers = [{"text": " ", "answer_start": 0}, {"text": "渤海", "answer_start": 11}, {"text": "东海"}]
    found = read([write(tmp_path, squad(qa(answers=answers)))], to_train_on=True)
    assert golds(found) == [("1", "渤海")] and found.groups[0].questions[0].references == [" ", "渤海", "东海"]


# --- where answers are: DuReader's form ---


def test_an_answer_that_stands_in_the_text_is_trained_on_where_the_first_does_not(tmp_path):
    answers = [{"text": LATER, "answer_start": 0}, {"text": "渤海", "answer_start": 11}]
    found = read([write(tmp_path, squad(qa(answers=answers)))], to_train_on=True)
    assert golds(found) == [("1", "渤海")]


@pytest.mark.parametrize("content", [squad(qa(text=LATER), qa()), [line(documents=[""]), line()]])
def test_the_id_of_a_question_that_is_left_out_is_free(tmp_path, content):
    found = read([write(tmp_path, content)], to_train_on=True, on_bad_line="skip")
    assert len(golds(found)) == len(found.problems) == 1


def random_line(draw, number):
    """Return a raw question with up to four documents of up to three paragraphs, some of them empty."""
    documents = [
        [" " if draw.random() < 0.1 else random_text(draw, 9) for _ in range(draw.randint(1, 3))]
        for _ in range(draw.randint(1, 4))
    ]
    whole = "".join(sum(documents, []))
    start = draw.randrange(len(whole) + 1)
    answers = [whole[start : start + draw.randint(1, 8)], random_text(draw, 3)][: draw.randint(1, 2)]
    found = line(number, documents, answers, question=random_text(draw, 4) + "长江")
    for document in found["documents"]:
        document["is_selected"] = draw.random() < 0.5
    return found


def baidus(record):
    """Return the paragraph of each document that an answer is nearest to, and the best span, by the definition."""
    answers = [words for words in (cut(answer).words for answer in record["answers"]) if words]
    chosen, best = {}, (0, None)
    for number, document in enumerate(record["documents"]):
        rows = [words for words in (cut(text).words for text in document["paragraphs"]) if words]
        if rows and answers:
            near = [-max(recall(row, answer) for answer in answers) for row in rows]
            chosen[number] = min(zip(near, map(len, rows), rows), key=lambda row: row[:2])[2]
    selected = [number for number in chosen if record["documents"][number]["is_selected"]]
    for number in selected or chosen:
        words = chosen[number]
        spans = itertools.combinations_with_replacement(range(len(words)), 2)
        for answer, (first, last) in itertools.product(answers, spans):
            value = f1(words[first : last + 1], answer)
            if value > best[0]:
                best = value, Gold(list(chosen).index(number), first, last)
    return chosen, best[1]


def preprocessed(record):
    """Return a record with the fields of DuReader's preprocessed form in place of the raw ones."""
    record, (chosen, gold) = copy.deepcopy(record), baidus(record)
    record["segmented_question"] = cut(record["question"]).words
    record["segmented_answers"] = [cut(answer).words for answer in record["answers"]]
    for number, document in enumerate(record["documents"]):
        rows = document["segmented_paragraphs"] = [cut(text).words for text in document["paragraphs"]]
        document["most_related_para"] = rows.index(chosen[number]) if number in chosen else 0
    record["answer_docs"] = [list(chosen)[gold.passage]] if gold else []
    record["answer_spans"] = [gold[1:]] if gold else []
    return record


def test_raw_lines_give_the_span_of_the_definition_and_preprocessed_ones_the_same(tmp_path):
    draw, used = random.Random(8), 0
    for number in range(150):
        record = random_line(draw, number)
        if not any(text.strip() for document in record["documents"] for text in document["paragraphs"]):
            continue
        chosen, gold = baidus(record)
        # Besides a sound line, or a file might have nothing in it that can be used.
        raw, ready = (
            read([write(tmp_path, [line("sound"), one])], to_train_on=True) for one in (record, preprocessed(record))
        )
        assert raw.counts[LEFT_OUT] == (gold is None) and len(raw.groups) == 2 - (gold is None)
        assert str(ready) == str(raw)
        if gold:
            used += 1
            group = raw.groups[1]
            assert [text.words for text in group.passages] == list(chosen.values()) and group.documents == list(chosen)
            assert group.questions[0].gold == gold
    assert used > 50


def test_of_each_document_the_paragraph_with_most_words_of_the_question_is_read(tmp_path):
    draw = random.Random(9)
    for number in range(100):
        record = random_line(draw, number)
        rows = [
            [words for words in map(cut, document["paragraphs"]) if words.words] for document in record["documents"]
        ]
        if not any(rows):
            continue
        wanted = cut(record["question"]).words
        (group,) = read([write(tmp_path, [record])]).groups
        assert group.documents == [place for place, texts in enumerate(rows) if texts]
        for text, place in zip(group.passages, group.documents):
            best = min(rows[place], key=lambda row: (-recall(row.words, wanted), len(row.words)))
            assert str(text) == str(best)


def test_five_documents_are_read_and_their_numbers_kept(tmp_path):
    documents = [f"{number}号。" for number in range(7)]
    documents[1] = ["", " "]
    found = read([write(tmp_path, [line(1, documents, ["4号"]), line(2, documents, ["6"])])], to_train_on=True)
    (group,) = found.groups
    assert group.documents == [0, 2, 3, 4] and [text.words[0] for text in group.passages] == ["0", "2", "3", "4"]
    assert group.questions[0].gold == Gold(3, 0, 1)
    assert +found.counts == {MORE_DOCUMENTS: 2, LEFT_OUT: 1}
    assert read([write(tmp_path, [line(1, documents)])]).groups[0].documents == [0, 2, 3, 4]


def test_fields_of_a_preprocessed_line_are_taken_as_they_are(tmp_path):
    document = {
        "paragraphs": [CONTEXT, "泰山 在山东"],
        "segmented_paragraphs": [["泰山"], ["泰 山", "", "在", "山东"]],  # the first one's words are not the text's
        "most_related_para": 1,
    }
    record = line(documents=[], segmented_question="泰山 哪里".split(), answer_docs=[1], answer_spans=[[2, 3]])
    record["documents"] = [{"paragraphs": ["黄河"], "segmented_paragraphs": ["黄 河"]}, document]
    (group,) = read([write(tmp_path, [record])], to_train_on=True).groups
    # A row may be a text with blanks, and a paragraph that is not named is chosen by the question.
    assert [text.words for text in group.passages] == [["黄", "河"], ["泰 山", "", "在", "山东"]]
    assert group.passages[1].text == "泰 山在山东"  # `泰 山` does not stand in the paragraph: the words are the text
    assert group.passages[1].piece(2, 3) == "在山东" and group.questions[0].text.words == ["泰山", "哪里"]
    for answer, long in ((2, 0), (1, 1)):
        assert read([write(tmp_path, [record])], Limits(answer=answer), to_train_on=True).counts[LONG] == long
    document["segmented_paragraphs"][0] = []
    for named in (0, 2):  # without a word, and none
        document["most_related_para"] = named
        assert read([write(tmp_path, [record])], to_train_on=True).groups[0].passages[1].words[3] == "山东"


@pytest.mark.parametrize("before, left_out", [(999, 0), (1000, 1)])
def test_an_answer_is_looked_for_in_the_first_thousand_words(tmp_path, before, left_out):
    record = line(2)
    record["documents"][0]["segmented_paragraphs"] = [["的"] * before + ["东海"]]
    assert read([write(tmp_path, [line(), record])], Limits(2000), to_train_on=True).counts[LEFT_OUT] == left_out


def test_a_typed_question(tmp_path):
    found = asked("长江流入哪里？", ["", CONTEXT, " \n", "长江"], Limits(5, 3))
    (group,) = found.groups
    assert group.documents == [1, 3] and [text.words for text in group.passages] == [WORDS[:5], ["长江"]]
    assert group.questions[0].text.words == ["长江", "流入", "哪里"] and group.passages[0].text == CONTEXT
    assert sorted(remarks(found)) == [f"1 {CUT_PASSAGES}", f"1 {CUT_QUESTIONS}"]
    for question, text, message in (
        (" ", CONTEXT, "the question is empty"),
        ("谁", "\n", "there is no text that could answer"),
        ("\udcff", CONTEXT, "half of a character"),
        ("谁", "\udcff", "half of a character"),
    ):
        with pytest.raises(InputError, match=message):
            asked(question, [text])
