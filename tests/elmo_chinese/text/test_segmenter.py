"""elmo_chinese/text/segmenter.py: the best path against all paths, C++ against Python, dictionaries that are none."""

import itertools
import json
import math

from elmo_chinese.network import kernels
from elmo_chinese.text import segmenter as segmenter_file
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.segmenter import (
    CharacterSegmenter,
    JiebaSegmenter,
    PathSegmenter,
    along,
    read_counts,
    segmenter_of,
)
from elmo_chinese.text.vocabulary import Vocabulary, note_path

import numpy as np
import pytest

LETTERS = "ab甲乙1７😀"


@pytest.fixture(params=["C++", "Python"])
def both(request, monkeypatch):
    """Run a test in C++ and in Python."""
    if request.param == "Python":
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C++ here")
    else:
        monkeypatch.setattr(segmenter_file, "FEW", 0)  # short texts, too


def random_problem(rng, size=9):
    """Return a text and a dictionary with some of its pieces."""
    text = "".join(rng.choice(list(LETTERS), size=rng.integers(1, size)))
    pieces = ["".join(rng.choice(list(LETTERS), size=rng.integers(1, 4))) for _ in range(12)]
    pieces += [text[start : start + 3] for start in rng.integers(0, len(text), 4)]
    return text, {piece: int(rng.integers(1, 1000)) for piece in pieces}


def folded(text):
    return text.translate({**{ord(c): "0" for c in "0123456789"}, **{ord(c): "0" for c in "０１２３４５６７８９"}})


def best_by_enumeration(text, score):
    """Return where the pieces of the best of all paths end; of equal ones the one with the furthest first ends."""
    paths = []
    for marks in itertools.product([0, 1], repeat=len(text) - 1):
        ends = [place for place, mark in enumerate(marks, start=1) if mark] + [len(text)]
        total = 0.0
        for start, end in reversed(list(zip([0, *ends], ends))):
            total = score(text[start:end]) + total
        paths.append((total, ends))
    return max(paths)[1]


def joined(text, ends):
    """Return the pieces, single letters and digits that stand side by side as one."""
    pieces, single = [], False
    for start, end in zip([0, *ends], ends):
        now = end == start + 1 and text[start].isascii() and text[start].isalnum()
        pieces[-1:] = [pieces[-1] + text[start:end]] if single and now else [*pieces[-1:], text[start:end]]
        single = now
    return pieces


def scorer(counts, kind, fold):
    """Return the function piece → score as the head of segmenter.py has it."""
    words, total = {}, sum(counts.values())
    for word, count in counts.items():
        words[fold(word)] = words.get(fold(word), 0) + count

    def score(piece):
        if piece not in words and len(piece) > 1:
            return -math.inf
        return math.log(words.get(piece, 1) if kind == "count" else len(piece)) - math.log(total)

    return score


@pytest.mark.parametrize("kind", ["count", "length"])
def test_the_path_is_the_best_of_all(both, kind):
    rng = np.random.default_rng(5)
    fold = folded if kind == "count" else str
    for _ in range(200):
        text, counts = random_problem(rng)
        score = scorer(counts, kind, fold)
        sizes = list(map(len, joined(fold(text), best_by_enumeration(fold(text), score))))
        expected = [text[end - size : end] for end, size in zip(itertools.accumulate(sizes), sizes)]
        assert PathSegmenter(counts, kind).cut(text) == expected, (text, counts)


def test_what_is_no_token_falls_into_characters(both):
    cutter = PathSegmenter({"甲乙": 9, "丙丁": 9}, "length", tokens={"甲乙", "ab"})
    assert cutter.cut("甲乙丙丁abcab") == ["甲乙", "丙", "丁", "a", "b", "c", "a", "b"]
    assert cutter.cut("ab丙") == ["ab", "丙"]


@pytest.fixture
def vocabulary(tmp_path):
    """A vocabulary, the most frequent words first."""
    words = ["<S>", "</S>", "<UNK>", "甲乙", "甲", "乙", "乙丙", "2010", "丙", "丁", "2", "0", "丙丁", "abc"]
    (tmp_path / "vocabulary.txt").write_text("".join(word + "\n" for word in words), encoding="utf-8")
    return tmp_path / "vocabulary.txt"


def test_text_is_cut_along_the_words_of_a_vocabulary(both, vocabulary):
    segmenter = segmenter_of(Vocabulary(vocabulary))
    assert segmenter.cut("甲乙 丙丁戊2010年20") == ["甲乙", "丙丁", "戊", "2010", "年", "2", "0"]
    assert segmenter.cut("ab abc") == ["a", "b", "abc"]  # no piece that is not known but single characters
    assert segmenter.cut("<UNK>") == list("<UNK>")
    assert along(Vocabulary(vocabulary), {"丙丁": 1, "丙": 900, "丁": 900}).cut("丙丁") == ["丙", "丁"]


def test_a_note_beside_the_vocabulary_says_how_text_is_cut(vocabulary):
    path = note_path(vocabulary)
    for segmenter in (JiebaSegmenter("甲丙戊 9"), PathSegmenter({"甲丙戊": 5, "丁": 1}, "count"), CharacterSegmenter()):
        segmenter.width = "half"
        path.write_text(json.dumps(segmenter.note), encoding="utf-8")
        again = segmenter_of(Vocabulary(vocabulary))
        text = "甲丙戊　Ａ丁"
        assert (again.cut(text), again.note) == (segmenter.cut(text), segmenter.note) and "A" in again.cut(text)
    along_words = along(Vocabulary(vocabulary))
    path.write_text(json.dumps(along_words.note), encoding="utf-8")
    assert segmenter_of(Vocabulary(vocabulary)).cut("甲乙丙丁戊己") == along_words.cut("甲乙丙丁戊己")
    for wrong in ("{", "[]", '{"kind": 3}', '{"kind": "jieba"}'):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError, match="vocabulary.segmenter.json: not a note on how text was cut"):
            Vocabulary(vocabulary)
    path.write_text('{"kind": "x", "dictionary": "", "width": "none"}', encoding="utf-8")
    with pytest.raises(InputError, match="to be cut by 'x'; known are characters, jieba, count, length, words"):
        segmenter_of(Vocabulary(vocabulary))


def test_digits_are_one_word_whichever_they_are(both):
    cutter = PathSegmenter({"1998年": 5, "年": 9}, "count")
    assert cutter.cut("２００３年99年") == ["２００３年", "99", "年"]
    again = PathSegmenter(read_counts("x", cutter.dictionary.split("\n")), "count")
    assert again.cut("２００３年") == ["２００３年"] and again.counts == cutter.counts


def test_lower_counts_hold_for_their_text_alone(both):
    counts = {"甲乙": 100, "甲": 20, "乙": 20, "丙丁": 7}
    cutter, texts = PathSegmenter(counts, "count"), ["甲乙丙丁", "甲乙丙丁", "", "甲丙丁"]
    without = [{"甲乙": 99, "甲": 3}, {}, {}, {"丙丁": 7}]
    found = cutter.cut_many(texts, without)
    assert found[1:] == [["甲乙", "丙丁"], [], ["甲", "丙", "丁"]]
    for text, lower, tokens in zip(texts, without, found):
        fewer = {word: count - lower.get(word, 0) for word, count in counts.items() if count > lower.get(word, 0)}
        assert tokens == PathSegmenter(fewer, "count").cut(text)
    assert found[0] == ["甲", "乙", "丙丁"]
    assert cutter.cut_many(texts) == cutter.cut_many(texts, [{}] * 4)
    years = PathSegmenter({"0年": 5, "0": 3, "年": 3}, "count")
    assert years.cut_many(["8年"] * 2, [{"1年": 2, "2年": 3}, {"1年": 2, "2年": 2}]) == [["8", "年"], ["8年"]]


def random_texts(rng, count):
    """Return texts from all over Unicode, half surrogates, NUL and line ends among them."""
    ranges = [(0, 0x80), (0x300, 0x370), (0x4E00, 0x4E20), (0xD800, 0xE000), (0xFF00, 0xFFF0), (0x1F300, 0x110000)]
    texts = []
    for _ in range(count):
        picked = [ranges[number] for number in rng.integers(0, len(ranges), rng.integers(0, 30))]
        texts.append("".join(chr(rng.integers(*bounds)) for bounds in picked))
    return texts


@pytest.mark.parametrize(
    "cutter",
    ["count", "length", "words", CharacterSegmenter(), JiebaSegmenter()],
    ids=lambda one: getattr(one, "kind", one),
)
def test_tokens_of_any_text_join_up_to_it(both, cutter):
    rng = np.random.default_rng(1)
    texts = random_texts(rng, 200)
    if isinstance(cutter, str):
        words = {text[start : start + 2]: 3 for text in texts if text for start in rng.integers(0, len(text), 3)}
        cutter = PathSegmenter(words, cutter)
        assert [cutter.cut(text) for text in texts] == [" ".join(row).split() for row in cutter.cut_many(texts)]
    found = cutter.cut_many(texts)
    assert ["".join(tokens) for tokens in found] == texts and not any("" in tokens for tokens in found)
    assert cutter.cut_many([]) == [] and cutter.cut_many(["", ""]) == [[], []]


def test_cpp_and_python_answer_alike(monkeypatch):
    if kernels.library() is None:
        pytest.skip("no C++ here")
    rng = np.random.default_rng(2)
    texts = ["".join(chr(code) for code in rng.integers(0x4E00, 0x4E10, 40)) for _ in range(300)]
    pieces = [text[start : start + rng.integers(1, 5)] for text in texts for start in (3, 9, 31)]
    words = {piece: int(rng.integers(1, 99)) for piece in pieces}
    lower = [{word: int(rng.integers(1, words[word] + 1)) for word in rng.choice(list(words), 30)} for _ in texts]
    cutters = [PathSegmenter(words, kind, tokens=set(list(words)[::2])) for kind in ("count", "length")]
    found = [cutter.cut_many(texts) for cutter in cutters] + [cutters[0].cut_many(texts, lower)]
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert found == [cutter.cut_many(texts) for cutter in cutters] + [cutters[0].cut_many(texts, lower)]
    assert found[0] != found[2]


@pytest.mark.parametrize(
    "lines, message",
    [
        (["a 3", "b"], "dict.txt: line 2: expected `word count`, found 'b'"),
        ([" 3"], "dict.txt: line 1: expected `word count`"),
        (["a -3"], "line 1: expected"),
        (["a b 3 n"], "line 1: expected"),
        (["a\t3"], "line 1: expected"),
        ([], "dict.txt: no word with a count in it"),
        (["a 0", ""], "no word with a count in it"),
    ],
)
def test_a_line_that_is_no_word_and_count_is_named(lines, message):
    with pytest.raises(InputError, match=message):
        read_counts("dict.txt", lines)


def test_jieba_s_columns_and_repeated_words_are_read():
    assert read_counts("x", ["甲 3 n", "乙 4\r", "甲 2", ""]) == {"甲": 5, "乙": 4}
