"""elmo_chinese/text/jieba_words.py: with rjieba and without the words are jieba's, token for token."""

import random
import re

from elmo_chinese.text import jieba_words
from elmo_chinese.text.jieba_words import bounded, cutter
from elmo_chinese.text.reading import InputError, read_lines
from elmo_chinese.text.segmenter import JiebaSegmenter

import jieba
import pytest

TEXT = ["data/text/01_astronomy.txt", "data/text/17_computing.txt", "lac/data/dev.txt", "tests/golden/README.md"]


@pytest.fixture(params=["rjieba", "jieba alone"])
def both(request, monkeypatch):
    """Run a test with rjieba and without."""
    if request.param == "jieba alone":
        monkeypatch.setattr(jieba_words, "rjieba", lambda: None)
    elif jieba_words.rjieba() is None:
        pytest.skip("rjieba is not installed")


@pytest.mark.parametrize("hmm", [True, False])
def test_tokens_are_jiebas(both, hmm):
    cut = cutter(hmm=hmm)
    lines = [line for path in TEXT for block in read_lines(path) for line in block if line][:400]
    lines += [
        "她在　沃尔玛\t买了 量子速读机。",
        "㐀中国鿖人\u3400\U00020000",
        "AT&T和C++的3.5%是2022年的iPhone14吗",
        *("a", "\r\n x"),
    ]
    for line in lines:
        assert cut(line) == list(jieba.cut(line, HMM=hmm)), line


def test_any_characters_are_cut_as_by_jieba(both):
    draw, cut = random.Random(0), cutter()
    for _ in range(500):
        some = "他带队检查了的小吃店a1.%-+#&_９Ａ，。 \u3000\t\n\x85\x1c\u3400\U00020000\ud800鿕鿖豈😀é"
        text = "".join(draw.choices(some, k=draw.randrange(40)))
        assert cut(text) == list(jieba.cut(text)), repr(text)


def test_half_width_is_looked_up_and_the_text_stays(both):
    (tokens,) = JiebaSegmenter(half_width=True).cut_many(["１９９８年的ＡＢＣ公司"])
    assert tokens == ["１９９８", "年", "的", "ＡＢＣ", "公司"]
    assert JiebaSegmenter().cut("她在　沃尔玛\t买了。") == ["她", "在", "沃尔玛", "买", "了", "。"]


def test_a_users_words(tmp_path):
    sentence = "她买了量子速读机。"
    assert "量子速读机" in JiebaSegmenter("量子速读机 100 n\n\n").cut(sentence)
    assert "量子速读机" not in JiebaSegmenter().cut(sentence)


@pytest.mark.parametrize("line", ["小吃店\t3", "小吃店,3", "小吃店\u30003 n", "小吃店 三"])
def test_a_users_word_that_jieba_would_not_understand_is_named(line):
    with pytest.raises(InputError, match="words.txt: line 3: expected `word`"):
        JiebaSegmenter(f"校园周边 5 n\n\n{line}\n", "words.txt")


def test_no_jieba_is_named(monkeypatch):
    monkeypatch.setattr(jieba_words.importlib, "import_module", lambda name: exec(f"raise ImportError({name!r})"))
    with pytest.raises(InputError, match="jieba is not installed; pip install jieba"):
        jieba_words.jieba()
    assert jieba_words.rjieba() is None


def test_jieba_gets_no_long_run_and_cuts_all_else_as_ever(both, monkeypatch):
    draw, cut = random.Random(0), cutter()
    monkeypatch.setattr(jieba_words, "LONGEST_RUN", 40)
    for _ in range(50):
        runs = ["".join(draw.choices("他带队检查了校园周边的小吃店a1.%-", k=draw.randrange(60))) for _ in range(6)]
        text = "".join(run + draw.choice("，。 、《\t\u3000・") for run in runs)
        pieces = bounded(text)
        assert "".join(pieces) == text
        assert max(len(run) for piece in pieces for run in re.findall(jieba_words.RUN, piece)) <= 40
        if all(len(run) <= 40 for run in runs):
            assert pieces == [text]
        assert cut(text) == [word for piece in pieces for word in jieba.cut(piece)]
