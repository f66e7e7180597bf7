"""elmo_chinese/text.py: which files are meant, and lines that are not UTF-8."""

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
