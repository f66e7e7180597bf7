"""elmo_chinese/text.py: which files are meant, and lines that are not UTF-8."""

import bz2
import gzip
import lzma
import os

from elmo_chinese.text import InputError, find_files, read_lines

import pytest


def test_not_utf8_names_file_line_and_byte(tmp_path):
    path = tmp_path / "gbk.txt"
    path.write_bytes("abc\n的\n".encode() + "中文".encode("gb18030"))
    for size in (2**23, 1, 4, 5):  # wherever a block ends
        with pytest.raises(InputError, match=r"gbk.txt: not UTF-8: line 3, byte 8 is 0xd6"):
            list(read_lines(path, block_size=size))


def test_find_files_takes_glob_folder_or_list(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(3):
        (corpus / f"part_{number}.txt").write_text("词\n", encoding="utf-8")
    all_of_them = sorted(corpus.iterdir())
    assert find_files(corpus) == find_files(str(corpus / "part_*")) == find_files(all_of_them) == all_of_them
    with pytest.raises(InputError, match=r"no file matches '.*none\*'.*looked from"):
        find_files(str(corpus / "none*"))
    (corpus / "void").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="void is empty"):
        find_files(corpus)


def test_what_exists_is_taken_literally_and_a_pipe_is_refused(tmp_path):
    for name in ("x[1].txt", "x1.txt"):
        (tmp_path / name).write_text("词\n", encoding="utf-8")
    assert find_files(tmp_path / "x[1].txt") == [tmp_path / "x[1].txt"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="a pipe or a device"):
            find_files(tmp_path / "pipe")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("block", [1, 3, 2**23])
def test_line_ends_of_windows_and_packing_change_nothing(tmp_path, pack, block):
    for text in ("甲 乙\r\n\r\n丙\r\n", "甲 乙\n\n丙\n", "甲 乙\r\n\n丙\r", "\ufeff甲 乙\n\r\n丙"):
        (tmp_path / "text").write_bytes(pack(text.encode("utf-8")))
        assert [line for lines in read_lines(tmp_path / "text", block) for line in lines] == ["甲 乙", "", "丙"]


def test_packed_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(InputError, match="a.zip: a zip archive; unpack it first"):
        list(read_lines(tmp_path / "a.zip"))
    (tmp_path / "a.gz").write_bytes(gzip.compress("字".encode() * 1000)[:-9])
    with pytest.raises(InputError, match="a.gz: damaged packed file"):
        list(read_lines(tmp_path / "a.gz"))
