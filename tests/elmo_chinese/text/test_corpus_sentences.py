"""elmo_chinese/text/corpus/sentences.py: a line to sentences, a sentence to words."""

import random

from elmo_chinese.text.corpus import sentences
from elmo_chinese.text.corpus.sentences import bounded, normalise, segment, split_sentences, tokenizer
from elmo_chinese.text.reading import InputError

import jieba
import pytest


@pytest.mark.parametrize(
    "line, expected",
    [
        ("今天下雨。明天呢？走吧！", ["今天下雨。", "明天呢？", "走吧！"]),
        ("他说：“你好。”她笑了。", ["他说：“你好。”", "她笑了。"]),
        ("“走吧！”，他说。好", ["“走吧！”，他说。", "好"]),
        ('他说:"你好。"她笑了。', ['他说:"你好。"', "她笑了。"]),
        ('真的?"你好"。', ["真的?", '"你好"。']),
        ("圆周率是3.14……还有呢", ["圆周率是3.14……还有呢"]),
        ("１．５倍。2.5倍", ["１．５倍。", "2.5倍"]),
        ("什么？……然后呢", ["什么？……", "然后呢"]),
        ("我想想。。。算了。走", ["我想想。。。算了。", "走"]),
        ("真的？！（是的。）好", ["真的？！", "（是的。）", "好"]),
        ("他（真的吗？我不信。）走了。好", ["他（真的吗？我不信。）走了。", "好"]),
        ("他（忘了括回去。走了。", ["他（忘了括回去。", "走了。"]),
        ("他（走。" + "远" * 200 + "）", ["他（走。", "远" * 200 + "）"]),
        ("《你是谁？》很好看。是吗", ["《你是谁？》很好看。", "是吗"]),
        ("见http://a.cn/?q=1和Yahoo!Inc好?是", ["见http://a.cn/?q=1和Yahoo!Inc好?", "是"]),
        ("He left. Then?  他走了｡好", ["He left. Then?", "他走了｡", "好"]),
        ("没有标点", ["没有标点"]),
        ("  \u3000 ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(line, expected):
    assert split_sentences(line) == expected


def test_nothing_is_lost_whatever_the_marks():
    draw = random.Random(0)
    for _ in range(2000):
        line = "".join(draw.choice("中文aA1 。！？!?…，”“\"'》《（）)(.") for _ in range(draw.randrange(40)))
        assert "".join(split_sentences(line)).replace(" ", "") == line.replace(" ", "")


def test_normalise():
    line = " Ａ１，　你\u00a0\t好\u200b。｡\x07~"
    assert normalise(line, "half") == "A1, 你 好 。。~"
    assert normalise(line, "full") == "Ａ１， 你 好 。。～"
    assert normalise(line, "none") == line
    every = "".join(map(chr, range(0x21, 0x7F)))
    assert normalise(normalise(every, "full"), "half") == every


def test_words_are_jiebas_and_the_users(tmp_path):
    sentence = "她在　沃尔玛\t买了 量子速读机。"
    assert segment(sentence) == " ".join(word for word in jieba.cut(sentence) if not word.isspace())
    (tmp_path / "words.txt").write_text("量子速读机 100 n\n\n", encoding="utf-8")
    assert "量子速读机" in segment(sentence, str(tmp_path / "words.txt")).split()
    assert "量子速读机" not in segment(sentence).split()
    (tmp_path / "gbk.txt").write_bytes("量子".encode("gb18030"))
    with pytest.raises(InputError, match="gbk.txt: not UTF-8: line 1, byte 0"):
        tokenizer(str(tmp_path / "gbk.txt"))


@pytest.mark.parametrize("line", ["小吃店\t3", "小吃店,3", "小吃店\u30003 n", "小吃店 三"])
def test_a_users_word_that_jieba_would_not_understand_is_named(tmp_path, line):
    (tmp_path / "words.txt").write_text(f"校园周边 5 n\n\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match="words.txt: line 3: expected `word`"):
        tokenizer(str(tmp_path / "words.txt"))


def test_jieba_gets_no_long_run_and_cuts_all_else_as_ever(monkeypatch):
    draw = random.Random(0)
    monkeypatch.setattr(sentences, "LONGEST_RUN", 40)
    for _ in range(50):
        runs = ["".join(draw.choices("他带队检查了校园周边的小吃店a1.%-", k=draw.randrange(60))) for _ in range(6)]
        text = "".join(run + draw.choice("，。 、《\t\u3000・") for run in runs)
        pieces = bounded(text)
        assert "".join(pieces) == text
        assert max(len(run) for piece in pieces for run in sentences.RUN.findall(piece)) <= 40
        if all(len(run) <= 40 for run in runs):
            assert pieces == [text]
        assert segment(text).replace(" ", "") == "".join(text.split())
