"""elmo_chinese/text/corpus/documents.py: files to documents."""

import gzip
import json

from elmo_chinese.text.corpus import documents as documents_file
from elmo_chinese.text.corpus import forms
from elmo_chinese.text.corpus.documents import check_file, detect_encoding, documents, find_texts, source
from elmo_chinese.text.reading import InputError

import pytest

TEXT = "第一篇。\n第二行。\n \n\n第二篇，联通。\r\n\n第三篇"
EXPECTED = [["第一篇。", "第二行。"], ["第二篇，联通。"], ["第三篇"]]


def read(path, text_field="text"):
    encoding = detect_encoding(str(path))
    return list(documents(str(path), encoding, forms.tell(source(str(path), encoding)), text_field))


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
    found = detect_encoding(str(path))
    assert found == ("gb18030" if encoding == "gb18030" else "utf-8-sig")
    monkeypatch.setattr(documents_file, "BLOCK", block)
    assert read(path, "body") == [(True, lines) for lines in EXPECTED]


def test_ascii_before_the_first_chinese_character_does_not_decide(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"plain\n" * 10 + "国标编码的中文".encode("gb18030"))
    monkeypatch.setattr(documents_file, "BLOCK", 16)
    assert detect_encoding(str(tmp_path / "a.txt")) == "gb18030"


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
    encoding = detect_encoding(str(path))
    monkeypatch.setattr(documents_file, "BLOCK", block)
    with pytest.raises(InputError, match=f"a.txt: {message}"):
        list(documents(str(path), encoding, "plain", "text"))


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
    monkeypatch.setattr(documents_file, "LONGEST_LINE", 50)
    monkeypatch.setattr(documents_file, "BLOCK", 30)
    (tmp_path / "a.txt").write_text("一二三四五六\n" * 5 + "\n" + "长" * 200, encoding="utf-8")
    found = read(tmp_path / "a.txt")
    assert [(starts, len(lines)) for starts, lines in found[:3]] == [(True, 2), (False, 2), (False, 1)]
    assert [starts for starts, _ in found[3:]] == [True] + [False] * (len(found) - 4) and len(found) > 5
    assert "".join(line for _, lines in found[3:] for line in lines) == "长" * 200


def test_files_of_folders_in_folders(tmp_path):
    for name in ("b/2.txt", "b/c/3.txt", "1.txt", ".hidden", ".git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("字", encoding="utf-8")
    found = find_texts([str(tmp_path), str(tmp_path / "*.txt")])
    assert [path[len(str(tmp_path)) + 1 :] for path in found] == ["1.txt", "b/2.txt", "b/c/3.txt"]
    with pytest.raises(InputError, match="no file matches 'nowhere'"):
        find_texts(["nowhere"])
