"""elmo_chinese/text/corpus/documents.py: files to documents."""

import gzip
import json

from elmo_chinese.text.corpus import documents as documents_file
from elmo_chinese.text.corpus import forms
from elmo_chinese.text.corpus.documents import check_file, documents, draw_dev
from elmo_chinese.text.reading import InputError

import numpy as np
import pytest

TEXT = "第一篇。\n第二行。\n \n\n第二篇，联通。\r\n\n第三篇"
EXPECTED = [["第一篇。", "第二行。"], ["第二篇，联通。"], ["第三篇"]]


def read(path, text_field="text"):
    source = forms.open_source(str(path))
    return list(documents(source, forms.tell(source, text_field), text_field))


@pytest.mark.parametrize("block", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "jsonl", "jsonl.gz"])
def test_every_form_gives_the_same_documents(tmp_path, monkeypatch, suffix, encoding, block):
    text = TEXT
    if "jsonl" in suffix:
        lines = [json.dumps({"id": 1, "body": "\n".join(lines)}, ensure_ascii=False) for lines in EXPECTED]
        text = "\n\n".join(lines)
    path = tmp_path / f"a.{suffix}"
    with gzip.open(path, "wb") if suffix.endswith("gz") else open(path, "wb") as file:
        file.write(text.encode(encoding))
    assert forms.open_source(str(path)).encoding == ("gb18030" if encoding == "gb18030" else "utf-8-sig")
    monkeypatch.setattr(forms, "BLOCK", block)
    assert read(path, "body") == [(True, lines) for lines in EXPECTED]


def test_ascii_before_the_first_chinese_character_does_not_decide(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"plain\n" * 10 + "国标编码的中文".encode("gb18030"))
    monkeypatch.setattr(forms, "BLOCK", 16)
    assert forms.open_source(str(tmp_path / "a.txt")).encoding == "gb18030"


@pytest.mark.parametrize("block", [5, 2**20])
@pytest.mark.parametrize(
    "data, message",
    [
        (
            "中文内容很多很多".encode() + b"\xff" + "再来".encode(),
            "looks like UTF-8, but is not from end to end: byte 24 is 0xff",
        ),
        ("中文内容很多很多".encode()[:-1], "looks like UTF-8, but is not from end to end: byte 21 is 0xe5"),
        (
            "国标编码的中文".encode("gb18030") + b"\xff1",
            "looks like GB18030, but is not from end to end: byte 14 is 0xff",
        ),
        ("中文\n".encode("utf-16")[:-1], "looks like UTF-16, but is not from end to end: byte 6 is 0x0a"),
        (b"abc\ndef\0", "not text: it holds the character 0"),
    ],
)
def test_the_first_bad_byte_is_named(tmp_path, monkeypatch, data, message, block):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    source = forms.open_source(str(path))
    monkeypatch.setattr(forms, "BLOCK", block)
    with pytest.raises(InputError, match=f"a.txt: {message}"):
        list(documents(source, "plain", "text"))


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 2 is not JSON"),
        ("[" * 100000, "line 2 is not JSON"),
        ("[1]", "line 2 has no text 'text' .found no object"),
        ('{"body": "字"}', "line 2 has no text 'text' .found 'body'"),
        ('{"text": 1}', "line 2: 'text' is 1, not a text"),
        (r'{"text": "\ud800"}', "line 2: 'text' holds half a character"),
    ],
)
def test_a_bad_line_of_json_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "好"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read(path)
    known = check_file(str(path), "text")
    assert message.split(".")[0] in known["error"] and known["documents"] == known["characters"] == 0


def test_damaged_gzip_and_missing_files(tmp_path):
    whole = gzip.compress("好的".encode() * 5000)
    for number, data in enumerate((whole[:-9], whole[:20], b"no gzip", whole[:12] + b"\xff" * 9 + whole[21:])):
        (tmp_path / f"{number}.gz").write_bytes(data)
        assert "damaged packed file" in check_file(str(tmp_path / f"{number}.gz"), "text")["error"]
    assert "cannot read" in check_file(str(tmp_path / "gone"), "text")["error"]


def test_a_long_document_comes_in_pieces_and_a_long_line_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_file, "PIECE", 10)
    monkeypatch.setattr(forms, "LONGEST_LINE", 50)
    monkeypatch.setattr(forms, "BLOCK", 30)
    (tmp_path / "a.txt").write_text("一二三四五六\n" * 5 + "\n" + "长" * 200, encoding="utf-8")
    found = read(tmp_path / "a.txt")
    assert [(starts, len(lines)) for starts, lines in found[:3]] == [(True, 2), (False, 2), (False, 1)]
    assert [starts for starts, _ in found[3:]] == [True] + [False] * (len(found) - 4) and len(found) > 5
    assert "".join(line for _, lines in found[3:] for line in lines) == "长" * 200


def test_the_share_of_dev():
    texts = [(True, [f"第{number}篇"]) for number in range(5000)]
    held = sum(is_dev for _, is_dev, _ in draw_dev(texts, 0.2, float("inf")))
    assert 900 < held < 1100 and not any(is_dev for _, is_dev, _ in draw_dev(texts, 0, float("inf")))


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.3])
def test_a_long_document_is_drawn_from_in_blocks_of_lines(fraction):
    """One block of 1 / fraction goes to dev, in whatever pieces the document comes."""
    for number in range(20):
        lines = [f"第{number}本的第{line}行。" for line in range(2000)]
        length = len("".join(lines))
        drawn = list(draw_dev([(True, lines)], fraction, 100))
        assert [starts for starts, _, _ in drawn] == [True] + [False] * (len(drawn) - 1)
        assert [line for *_, block in drawn for line in block] == lines
        assert all(100 <= len("".join(block)) < 120 for *_, block in drawn[:-1])
        held = [place for place, (_, is_dev, _) in enumerate(drawn) if is_dev]
        assert all(int(1 / fraction) <= gap <= int(1 / fraction) + 1 for gap in np.diff([-1, *held, len(drawn)])[1:-1])
        assert sum(len("".join(drawn[n][2])) for n in held) == pytest.approx(fraction * length, rel=0.1)
        # The first block goes where the document went as a whole.
        assert drawn[0][1] == next(draw_dev([(True, lines)], fraction, float("inf")))[1]
        # Its pieces end anywhere; the hash is of the first.
        pieces = [(True, lines[:700]), (False, lines[700:703]), (False, lines[703:])]
        drawn = [(is_dev, line) for _, is_dev, block in draw_dev(pieces, fraction, 100) for line in block]
        first = next(draw_dev([(True, lines[:700])], fraction, 100))
        assert [line for _, line in drawn] == lines and drawn[0][0] == first[1]
