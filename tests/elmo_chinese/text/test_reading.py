"""elmo_chinese/text/reading.py: which files are meant, and lines that are not UTF-8."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import random
import sys
import tarfile
import threading

from elmo_chinese.text.reading import InputError, find_files, read_lines, read_stdin

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


def lines_of(path, **more):
    return list(itertools.chain.from_iterable(read_lines(path, **more)))


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, "": bytes}
CHARACTERS = "字a \t\u3000\u2028\x85\x0b\r"


def test_random_lines_with_random_ends_packed_or_not(tmp_path):
    draw = random.Random(0)
    for _ in range(300):
        texts = ["".join(draw.choices(CHARACTERS, k=draw.randrange(6))) for _ in range(draw.randint(1, 9))]
        texts = [text.rstrip("\r") for text in texts]
        content = "".join(text + draw.choice(["\n", "\r\n"]) for text in texts)
        if texts[-1] and draw.random() < 0.5:
            content = content.rstrip("\r\n")
        name, ending = draw.choice(["a.txt", "a"]), draw.choice(list(PACK))
        path = tmp_path / (name + draw.choice([ending, ""]))
        path.write_bytes(PACK[ending](draw.choice(["", "\ufeff"]).encode() + content.encode()))
        assert lines_of(path, block_size=draw.choice([1, 3, 2**23])) == texts, content


@pytest.mark.parametrize(
    "codec, name", [("gb18030", "GB18030"), ("big5", "BIG5-HKSCS"), ("utf-16", "UTF-16"), ("utf-32", "UTF-32")]
)
def test_another_encoding_is_named_with_what_converts_it(tmp_path, codec, name):
    (tmp_path / "a").write_bytes("我們今天出去看花，天氣很好。".encode(codec))
    with pytest.raises(InputError, match=f"not UTF-8: line 1, byte 0 .* iconv -f {name} -t UTF-8"):
        lines_of(tmp_path / "a")


@pytest.mark.parametrize(
    "name, start, what",
    [
        ("a.zip", b"PK\3\4rest", "unzip"),
        ("a.txt.zst", b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        ("a", b"7z\xbc\xaf\x27\x1crest", "7z x"),
        ("a.rar", b"Rar!\x1a\x07rest", "unrar x"),
        ("a.lz4", b"\x04\x22\x4d\x18rest", "lz4 -d"),
    ],
)
def test_packed_in_another_way_is_named_with_what_unpacks_it(tmp_path, name, start, what):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(InputError, match=f"{name}: a packed file; unpack it first: {what} .*{name}"):
        lines_of(tmp_path / name)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_damaged_packed_files_and_archives_are_named(tmp_path, ending):
    whole, path = PACK[ending]("好的\n".encode() * 5000), tmp_path / f"a{ending}"
    for data in (whole[:-9], whole[:20], b"not packed", whole[:30] + b"\xff" * 9 + whole[39:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"a{ending}: a damaged packed file"):
            lines_of(path)
    with io.BytesIO() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("text"), io.BytesIO(b""))
        path.write_bytes(PACK[ending](archive.getvalue()))
    with pytest.raises(InputError, match="an archive of files; unpack it first: tar -xf"):
        lines_of(path)


def test_what_exists_is_taken_literally(tmp_path):
    for name in ("x[1].txt", "x1.txt", "x?.txt", "x*.txt", "[]"):
        (tmp_path / name).write_text(name + "\n", encoding="utf-8")
    for name in ("x[1].txt", "x?.txt", "x*.txt", "[]"):
        assert find_files(str(tmp_path / name)) == [tmp_path / name]
    assert len(find_files(str(tmp_path / "x*"))) == 4
    assert find_files(str(tmp_path / "x[1-9].*")) == [tmp_path / "x1.txt"]
    (tmp_path / "d[1]").mkdir()
    (tmp_path / "d[1]" / "a").write_text("字", encoding="utf-8")
    assert find_files(tmp_path / "d[1]") == [tmp_path / "d[1]" / "a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_read_whole_and_refused_where_it_may_be_read_again(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(InputError, match="a pipe or a device"):
        find_files(path)
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress("一\n二\n".encode()),))
    writer.start()
    assert lines_of(path) == ["一", "二"]
    writer.join()


def test_a_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        next(read_stdin())
