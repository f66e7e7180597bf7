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

from elmo_chinese.text.reading import (
    InputError,
    find_files,
    form_of,
    read_lines,
    read_sentences,
    read_stdin,
    read_text,
)

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
    assert find_files(corpus) == all_of_them
    with pytest.raises(InputError, match="void is empty"):
        find_files(corpus / "void")


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


def test_files_of_folders_in_folders(tmp_path):
    for name in ("b/2.txt", "b/c/3.txt", "1.txt", ".hidden", ".git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("字", encoding="utf-8")
    found = find_files([str(tmp_path), str(tmp_path / "*.txt")])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["1.txt", "b/2.txt", "b/c/3.txt"]
    with pytest.raises(InputError, match="no file matches 'nowhere'"):
        find_files(["nowhere"])


def test_links_are_followed_and_each_folder_is_read_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("字。\n", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "mine" / "wiki")
    os.symlink(tmp_path / "real", tmp_path / "mine" / "zhwiki")
    os.symlink(tmp_path / "mine", tmp_path / "real" / "round")
    os.symlink(tmp_path / "real" / "a.txt", tmp_path / "mine" / "z.txt")
    both = [str(tmp_path / "mine"), str(tmp_path / "real")]
    assert find_files(both) == [tmp_path / "mine" / "wiki" / "a.txt"]
    os.symlink(tmp_path / "nowhere", tmp_path / "mine" / "gone")
    assert tmp_path / "mine" / "gone" in find_files(both)  # so that reading it fails by name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_by_itself_and_in_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe or a device"):
        find_files([str(tmp_path / "pipe")])
    with pytest.raises(InputError, match="a pipe or a device"):
        find_files([str(tmp_path)])


def test_what_spark_writes_beside_its_parts_and_empty_parts_are_left_out(tmp_path):
    for name in ("_SUCCESS", "._SUCCESS.crc", "_metadata", "_temporary/0/part", "_committed_17", "part-2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for ending, pack in PACK.items():
        (tmp_path / f"part-0{ending}").write_bytes(pack("字\n".encode()))
        (tmp_path / f"part-1{ending}").write_bytes(pack(b""))
    (tmp_path / "_mine.txt").write_text("字\n", encoding="utf-8")
    (tmp_path / "_committed_17").write_text("{}", encoding="utf-8")
    assert [path.name for path in find_files(tmp_path)] == ["_mine.txt", *sorted(f"part-0{ending}" for ending in PACK)]
    with pytest.raises(InputError, match="part-1 is empty, and so are 4 more"):
        find_files([str(tmp_path / "part-1*"), tmp_path / "part-2"])


MARK, ZWSP, VARIANT = "\ufeff", "\u200b", "\ufe0f"


def test_a_text_has_lines_whatever_ends_them_and_no_characters_without_width(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(f"{MARK}一 二\r三\r\n四\x85五\u2028六\u2029\n{MARK}七{ZWSP}八 {VARIANT} 九\n<S> 十 </S>".encode())
    for size in (2**23, 1, 5):
        lines = list(itertools.chain.from_iterable(read_text(path, size)))
        assert lines == ["一 二", "三", "四", "五", "六", "", "七八  九", "<S> 十 </S>"]
        sentences = list(itertools.chain.from_iterable(read_sentences(path, size)))
        assert sentences == [["一", "二"], ["三"], ["四"], ["五"], ["六"], [], ["七八", "九"], ["十"]]
    assert lines_of(path)[0].startswith("一 二\r三")  # as a vocabulary or JSON has it


CONLLU = "# sent_id = 1\n# text = 我来\n1\t我\t我\tPRON\tPN\t_\t2\tnsubj\t_\t_\n"


@pytest.mark.parametrize(
    "text, form",
    [
        (CONLLU, "CoNLL-U"),
        ("1\t我们 来 了 。\n2\t你 好\n", "numbered lines"),
        ('{"text": "我们"}\n', "JSON"),
        ('[\n  {"text": "我们"}]\n', "JSON"),
        ('<doc id="1" url="x" title="题">\n', "markup"),
    ],
)
def test_other_forms_than_a_sentence_a_line_are_named(tmp_path, text, form):
    (tmp_path / "a").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"a: {form}.*preprocess.py sentences"):
        list(read_sentences(tmp_path / "a"))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress("甲,乙\n".encode()))
    with pytest.raises(InputError, match="b.csv.gz: a table, and one sentence a line"):
        list(read_sentences(tmp_path / "b.csv.gz"))


@pytest.mark.parametrize(
    "text", ["1\t月\n1\t日\n", "12 月 3 日\n", "{ 集合 }\n", '{ " 字 " : 1 }\n', "<S> 字 </S>\n", ""]
)
def test_segmented_text_that_looks_like_another_form_is_read(text):
    assert form_of(text) is None


@pytest.mark.parametrize(
    "start, name",
    [
        (b"PAR1\x15\x04", "Parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "OLE .Thumbs.db"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_files_without_text_are_named(tmp_path, start, name):
    (tmp_path / "a").write_bytes(start)
    with pytest.raises(InputError, match=f"a: {name}.*no text"):
        lines_of(tmp_path / "a")
    draw = random.Random(0)
    (tmp_path / "b").write_bytes(bytes(draw.randrange(256) for _ in range(5000)))
    with pytest.raises(InputError, match="b: no text: .* control characters"):
        lines_of(tmp_path / "b")
