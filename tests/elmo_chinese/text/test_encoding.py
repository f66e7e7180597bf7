"""elmo_chinese/text/encoding.py: encodings are told on the project's own texts and on traditional Chinese."""

import random

from elmo_chinese.text.encoding import guess_encoding

import pytest
from conftest import ROOT

SIMPLE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "data" / "text").iterdir()))
TRADITIONAL = (
    "語言學家研究人類怎樣說話、怎樣聽懂別人的話，也研究文字從哪裡來。昨天傍晚雷雨過後，街道兩旁的樹葉還滴著水，"
    "孩子們圍著賣豆花的攤子，問老闆為什麼今天來得這麼晚。這座圖書館藏書三十萬冊，歡迎讀者週末前來閱覽。"
)
CODECS = ["utf-8", "utf-8-sig", "gb18030", "big5", "big5hkscs", "cp950", "utf-16", "utf-32"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [30, 1000])
def test_the_encoding_is_told(codec, size):
    draw, expected = random.Random(0), {"utf-8": "utf-8-sig", "big5": "big5hkscs", "cp950": "big5hkscs"}
    for text in [TRADITIONAL * 20] if codec in ("big5", "big5hkscs", "cp950") else [TRADITIONAL * 20, SIMPLE]:
        for _ in range(20):
            start = draw.randrange(len(text) - size)
            data = text[start : start + size].encode(codec)
            assert guess_encoding(data[: len(data) - size // 1000]) == expected.get(codec, codec)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_ascii(codec):
    assert guess_encoding(SIMPLE[:3000].encode(codec)) == codec
    assert guess_encoding("Only ASCII.\n".encode(codec)) == codec


def test_damage_does_not_make_another_encoding_of_utf_8():
    data = SIMPLE[:300].encode("utf-8")
    assert guess_encoding(data[:100] + b"\xff\0\xfe" + data[100:]) == "utf-8-sig"
