"""mrc/model.py: spans against enumeration, answers in their texts, and folders that are none of a reader."""

import itertools
import re

from elmo_chinese.files import CheckpointError
from elmo_chinese.storage import checkpoint
from elmo_chinese.text.vocabulary import vocabulary_from
from elmo_chinese.training.batches import pad
from elmo_chinese.training.layers import LayerCache

import numpy as np
import paddle
import pytest
from conftest import largest_difference

from bilm import ElmoEncoder
from mrc import model as reading
from mrc.model import Model
from mrc.network import Reader
from mrc.questions import Group, Limits, Question
from mrc.texts import cut, segmented, windows

TEXTS = ["长江发源于青藏高原。它流入东海！", "黄河流入渤海。", "泰山在山东。"]


def groups():
    """Two groups: one of two passages and two questions, one of one passage and one question."""
    questions = [
        Question(str(n), segmented(list(text)), None, []) for n, text in enumerate(["长江流入哪", "黄河", "泰山在"])
    ]
    texts = [segmented(list(text), text) for text in TEXTS]
    return [Group(texts[:2], questions[:2], [0, 3]), Group(texts[2:], questions[2:], [1])]


def model(elmo=True):
    paddle.seed(4)
    words = sorted(set("".join(TEXTS)))
    encoder = ElmoEncoder(len(words) + 3, embed_size=4, hidden_size=6, dropout=0, layer_norm=True) if elmo else None
    specials = ["<S>", "</S>", "<UNK>"]
    vocabulary = vocabulary_from(specials + words[: len(words) // 2])
    network = Reader(vocabulary.size, word_emb_dim=6, hidden_size=5, encoder=encoder)
    network.eval()
    return Model(network, vocabulary, vocabulary_from(specials + words) if elmo else None, Limits(30, 20, 4))


@pytest.mark.parametrize("most", [1, 3, 99])
def test_the_likeliest_span_equals_enumeration(most):
    random = np.random.default_rng(0)
    start, end = (np.log(random.dirichlet(np.ones(12), 5)).reshape(5, 2, 6).astype(np.float32) for _ in range(2))
    start[:, 1, 4:], end[:, 1, 4:] = -1e9, -1e9
    found = reading.best_spans(start, end, most)
    for row in range(5):
        spans = {
            (document, first, last): float(start[row, document, first]) + float(end[row, document, last])
            for document, first, last in itertools.product(range(2), range(6), range(6))
            if first <= last < first + most
        }
        best = max(spans, key=spans.get)
        assert tuple(found[row, :3]) == best and found[row, 3] == pytest.approx(np.exp(spans[best]), rel=1e-5)


def test_answers_stand_in_their_texts_and_batches_do_not_matter(monkeypatch):
    one, together = model(), reading.predict(model(), groups())
    assert list(together) == ["0", "1", "2"]
    for name, answer in together.items():
        documents = {0: TEXTS[0], 3: TEXTS[1]} if name != "2" else {1: TEXTS[2]}
        assert answer.text == documents[answer.document][answer.start : answer.end] and 1 <= len(answer.text) <= 4
        assert 0 < answer.probability < 1
    monkeypatch.setattr(reading, "MAX_GROUPS", 1)
    encoded = reading.encode(one, groups())
    alone = reading.predict_spans(one, encoded)
    shares = sum(reading.predict_spans(one, encoded, None, rank, 2) for rank in range(2))
    cached = reading.predict_spans(one, encoded, LayerCache(one.reader.encoder, encoded.elmo))
    assert largest_difference(alone, shares) == 0 and largest_difference(alone, cached) < 1e-6
    assert [answer.probability for answer in together.values()] == pytest.approx(alone[:, 3], rel=1e-5)


def long_groups():
    """Three groups: of 60 sentences, of many and one, and of one short text."""
    draw = np.random.default_rng(3)
    words, marks = sorted(set("".join(TEXTS)) - set("。！")), ["。", "！"]
    many = ["".join("".join([*draw.choice(words, 9), *draw.choice(marks, 1)]) for _ in range(60)) for _ in range(2)]
    questions = [Question(str(n), segmented(list("长江流入哪")[n:]), None, []) for n in range(4)]
    of_all = [([many[0]], questions[:2]), ([many[1], TEXTS[1]], questions[2:3]), ([TEXTS[2]], questions[3:])]
    return [
        Group([segmented(list(text), text) for text in some], asked, list(range(5, 5 + len(some))))
        for some, asked in of_all
    ]


def joint(one, group):
    """Return the answers to a group with all windows of all its passages in one softmax."""
    pairs = [
        (window, number)
        for text, number in zip(group.passages, group.documents)
        for window in windows(text, one.limits.passage)
    ]
    group = group._replace(passages=[window for window, _ in pairs], documents=[number for _, number in pairs])
    return reading.answers([group], reading.predict_spans(one, reading.encode(one, [group])))


def test_a_long_text_is_read_to_its_end(monkeypatch):
    one = model()
    found, places = reading.predict(one, long_groups()), []
    assert list(found) == ["0", "1", "2", "3"]
    for group in long_groups():
        right = joint(one, group)
        for question in group.questions:
            answer, best = found[question.id], right[question.id]
            assert answer._replace(probability=0) == best._replace(probability=0)
            assert answer.probability == pytest.approx(best.probability, rel=1e-4)
            text = group.passages[group.documents.index(answer.document)].text
            assert text[answer.start : answer.end] == answer.text
            places.append(answer.start)
    assert max(places) > one.limits.passage
    monkeypatch.setattr(reading, "MAX_PASSAGES", 3)  # so many windows at a time change nothing
    for name, answer in reading.predict(one, long_groups()).items():
        assert answer._replace(probability=0) == found[name]._replace(probability=0)
        assert answer.probability == pytest.approx(found[name].probability, rel=1e-4)


def test_the_bilm_reads_sentence_by_sentence():
    one, group = model(), groups()[0]
    encoded = reading.encode(one, [group])
    assert [len(ids) for ids in encoded.elmo[0]] == [10, 6]
    layers = LayerCache(one.reader.encoder, encoded.elmo)([0]).numpy()
    second = one.elmo_vocabulary.encode(list("它流入东海！"))
    expected = one.reader.encoder.layers(paddle.to_tensor(pad([np.array(second)]))).numpy()
    assert largest_difference(layers[:, 0, 10:16], expected[:, 0]) < 1e-6


def test_words_are_looked_up_in_half_width_and_lower_case():
    texts = [Group([cut("ＡＢＣ公司，ABC公司。")], [Question("1", cut("abc公司"), None, [])], [0])]
    vocabulary = reading.build_vocabulary(texts, min_count=3)
    assert vocabulary.words[3:] == ["abc", "公司"]


def test_words_with_white_space_in_them_are_in_no_vocabulary():
    words = ["长 江", "黄\n河", "", " ", "泰山", "\u3000泰山", "<UNK>"]
    texts = [Group([segmented(words)], [Question("1", segmented(["泰山"]), None, [])], [0])]
    assert reading.build_vocabulary(texts, min_count=1).words == ["<S>", "</S>", "<UNK>", "泰山", "<unk>"]


def save(folder, one, **more):
    info = {"step": 1, **reading.model_info(one), **more}
    return checkpoint.save(
        folder, info, one.reader.state_dict(), {}, reading.model_state(one), one.vocabulary.text
    )  # fmt: skip


@pytest.mark.parametrize("elmo", [True, False])
def test_a_folder_holds_everything_it_needs(tmp_path, elmo):
    one = model(elmo)
    folder = save(tmp_path, one)
    again = reading.load(folder)
    assert again.limits == one.limits and reading.model_info(again) == reading.model_info(one)
    assert reading.predict(again, groups()) == reading.predict(one, groups())


@pytest.mark.parametrize(
    "info, message",
    [
        ({"tags": ["n"], "limits": None}, "is a tagger, not a reader"),
        ({"rows": 4, "limits": None}, "is a language model, not a reader"),
        ({"limits": {"passage": 0, "question": 1, "answer": 1}}, "does not fit the other files"),
        ({"limits": {"passage": 1}, "model": 3}, "does not fit the other files"),
        ({"elmo": None}, "does not belong together with the rest"),
        (
            {"model": {"num_words": 9, "word_emb_dim": 6, "hidden_size": 10**9, "elmo_vectors": "mix"}},
            "do not fit the [0-9,]+ numbers",
        ),
        (
            {"model": {"num_words": 9, "word_emb_dim": 6, "hidden_size": 5, "elmo_vectors": "mix"}},
            "9 words do not fit a vocabulary of",
        ),
        (
            {"model": {"num_words": 14, "word_emb_dim": 6, "hidden_size": 5, "elmo_vectors": "all"}},
            "elmo_vectors must be one of mix, lookup",
        ),
    ],
)
def test_folders_that_are_none_of_a_reader(tmp_path, info, message):
    folder = save(tmp_path, model(), **info)
    if info.get("limits", 1) is None:
        text = (folder / checkpoint.INFO_FILE).read_text(encoding="utf-8").replace('"limits": null,\n', "")
        (folder / checkpoint.INFO_FILE).write_text(text, encoding="utf-8")
        checkpoint.write_sums(folder, checkpoint.PAYLOAD)
    with pytest.raises(CheckpointError) as error:
        reading.load(folder)
    assert re.search(message, str(error.value)), error.value
