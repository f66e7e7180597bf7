"""elmo_chinese/text/corpus/sentences.py: a line to sentences."""

import random

from elmo_chinese.text.corpus.sentences import normalise, split_sentences

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
