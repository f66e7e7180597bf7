"""lac/corpus.py: from the People's Daily format to tagged lines."""

import re

from elmo_chinese import files

import pytest
from conftest import ROOT

from lac import corpus
from lac.corpus import split
from lac.dictionaries import read_tags
from lac.lines import join_names, parse_line, parse_words, read_gold


def text(words):
    return " ".join(f"{word}/{kind}" for word, kind in words)


@pytest.mark.parametrize(
    "line, expected",
    {
        "plain": ("迈向/v  充满/v  希望/n", "迈向/v 充满/v 希望/n"),
        "article": ("19980101-01-001-001/m  迈向/v", "迈向/v"),
        "article alone": ("19980101-01-001-001/m", ""),
        "a number is no article": ("1998/m 年/q", "1998/m 年/q"),
        "bracket": ("[中央/n 人民/n 广播/vn 电台/n]nt 说/v", "中央人民广播电台/nt 说/v"),
        "bracket with a slash": ("在/p [北京/ns 大学/n]/nt", "在/p 北京大学/nt"),
        "bracket around one": ("[江/nr]nz", "江/nz"),
        "two brackets": ("[a/n b/n]nt [c/n d/n]nz", "ab/nt cd/nz"),
        "nested": ("[a/n [b/n c/n]nz d/n]nt e/v", "abcd/nt e/v"),
        "nested at the end": ("[a/n [b/n c/n]nz]nt e/v", "abc/nt e/v"),
        "names": ("江/nr 泽民/nr 同志/n", "江泽民/nr 同志/n"),
        "names in brackets": ("[江/nr 泽民/nr]nz", "江泽民/nz"),
        "brackets and slashes as words": ("[/w 1/2/m ]/w //w", "[/w 1/2/m ]/w //w"),
    }.values(),
)
def test_the_format(line, expected):
    assert text(parse_words(line, join=True)) == expected


@pytest.mark.parametrize(
    "line, message",
    [
        ("迈向/v 充满", "expected word/type, found '充满'"),
        ("迈向/v /v", "expected word/type, found '/v'"),
        ("迈向/", "expected word/type"),
        ("[中央/n 电台/n", "`\\[` without a `\\]` after it at '中央'"),
        ("中央/n 电台/n]nt", "`\\]` without a `\\[` before it at '电台/n\\]nt'"),
        ("中\tB-LOC", "the tag 'B-LOC': .*: LOC-B LOC-I, each sentence on one line"),
        ("在 中 国\tO B-LOC I-LOC", "the tag 'B-LOC'"),
        ("小 明 明\tPER-B PER-M PER-E", "the tag 'PER-M'"),
        ("中/B-LOC 国/I-LOC", "the tag 'B-LOC'"),
        ("上 海 市 在\tB M E S", "the tags B M E S have no type, which stands before them"),
        ("上/B 海/E 在/S", "the tags B E S have no type"),
        ("小/PER-B 明/PER-I 在/O", "expected word/type, found '小/PER-B'; tokens and their tags go"),
    ],
)
def test_what_is_wrong_is_said(line, message):
    with pytest.raises(ValueError, match=message):
        parse_line(line)


@pytest.mark.parametrize(
    "names, expected",
    [
        ("江/nr 泽民/nr", "江泽民/nr"),
        ("欧阳/nr 修/nr", "欧阳修/nr"),
        ("江/nr 泽民/nr 李/nr 鹏/nr", "江泽民/nr 李鹏/nr"),
        ("叶利钦/nr 江/nr 泽民/nr", "叶利钦/nr 江泽民/nr"),
        ("江/nr 、/w 李/nr", "江/nr 、/w 李/nr"),
    ],
)
def test_surname_and_given_name_are_one_name(names, expected):
    assert text(join_names([tuple(token.split("/")) for token in names.split()])) == expected


@pytest.mark.parametrize(
    "line, expected",
    {
        "two blanks": ("江/nr  泽民/nr", "江泽民/nr"),
        "an article": ("19980101-01-001-001/m 江/nr 泽民/nr", "江泽民/nr"),
        "a bracket": ("江/nr 泽民/nr [北京/ns 大学/n]nt", "江泽民/nr 北京大学/nt"),
        "one blank": ("李鹏/nr 江泽民/nr", "李鹏/nr 江泽民/nr"),
        "a bracket as a word": ("[/w 李鹏/nr 江泽民/nr ]/w", "[/w 李鹏/nr 江泽民/nr ]/w"),
        "tokens and tags": ("江 泽民 、 大 桥\tnr-B nr-I O n-B n-E", "江泽民/nr 、/O 大桥/n"),
    }.values(),
)
def test_the_forms_of_a_line_are_told_by_looking(line, expected):
    assert text(parse_line(line)) == expected


def test_words_without_types():
    assert parse_line("江/nr 泽民", typed=False) == [("江/nr", ""), ("泽民", "")]
    assert parse_line("江 泽民\tnr-B nr-I", typed=False) == [("江泽民", "")]


@pytest.fixture
def source(tmp_path):
    lines = [f"第{number}/m 届/q 江/nr 泽民/nr 主席/n 在/p [北京/ns 大学/n]nt 讲话/v" for number in range(40)]
    lines[5] = ""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(source, *more):
    output = source.parent / f"out{len(more)}"
    corpus.main(["--input", str(source), "--output", str(output), *more])
    return output


def test_written_files_are_what_the_reader_reads(source):
    output = run(source, "--dev_lines", "5", "--test_lines", "7")
    tags = read_tags(output / "tag.dic")
    assert tags[:3] == ["m", "m-B", "m-I"] and len(tags) == 21
    counts = {}
    for name in ("train", "dev", "test"):
        lines, problems = read_gold(output / f"{name}.txt")
        counts[name] = len(lines)
        for line in lines:
            assert text(line.words).split()[1:] == "届/q 江泽民/nr 主席/n 在/p 北京大学/nt 讲话/v".split()
    assert counts == {"train": 27, "dev": 5, "test": 7}


def test_the_split_is_drawn_by_seed_and_is_disjoint(source):
    lines, _ = read_gold(str(source))
    parts = split(lines, dev=5, test=7, train=0, seed=1)
    assert sorted(line.where for line in sum(parts, [])) == sorted(line.where for line in lines)
    assert parts == split(lines, 5, 7, 0, seed=1) and parts != split(lines, 5, 7, 0, seed=2)
    fewer, more = (split(lines, 5, 7, count, seed=1) for count in (6, 12))
    assert fewer.test == more.test == parts.test and fewer.dev == parts.dev
    assert all(line in more.train for line in fewer.train) and len(fewer.train) == 6


@pytest.mark.parametrize(
    "content, more, message",
    [
        ("a/n\nb\n", [], "corpus.txt: line 2: expected word/type, found 'b' .--on_bad_line skip"),
        ("a/n\n", ["--test_lines", "3"], "the input has 1 usable lines, too few for 3 test lines"),
        ("", [], "is empty"),
        ("a/n\n", ["--dev_input", "nowhere"], "no file matches 'nowhere'"),
    ],
)
def test_bad_input_is_a_clear_error(source, capsys, content, more, message):
    source.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(source, *more)
    assert stopped.value.code == 1 and re.search(message, capsys.readouterr().err)


def test_two_at_once_do_not_mix(source, monkeypatch, capsys):
    monkeypatch.setattr(files, "LOCK_TRIES", 0)
    with files.lock_folder(source.parent / "out0", ""):  # the other one
        with pytest.raises(SystemExit) as stopped:
            run(source)
    assert stopped.value.code == 1 and "another process is writing to " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.txt", "dev.txt", "test.txt", "tag.dic"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_there_already_is_not_replaced(source, capsys, name, kind):
    there = source.parent / "out0" / name
    there.parent.mkdir()
    if kind == "link":
        there.symlink_to("nowhere")
    elif kind == "folder":
        there.mkdir()
    else:
        there.write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        run(source)
    assert stopped.value.code == 1 and f"{there} is there already and is not replaced" in capsys.readouterr().err
    assert [path.name for path in there.parent.iterdir()] == [name]
    assert kind != "file" or there.read_text() == "mine"


def test_the_input_is_not_the_output(source, capsys):
    source.rename(source.with_name("train.txt"))
    before = source.with_name("train.txt").read_bytes()
    with pytest.raises(SystemExit):
        corpus.main(["--input", str(source.with_name("train.txt")), "--output", str(source.parent)])
    assert "train.txt is there already" in capsys.readouterr().err
    assert source.with_name("train.txt").read_bytes() == before and len(list(source.parent.iterdir())) == 1


def test_bad_lines_can_be_skipped(source, capsys):
    source.write_text("a/n\nb\nc/n\n", encoding="utf-8")
    output = run(source, "--on_bad_line", "skip")
    assert "1 lines skipped, the first: " in capsys.readouterr().out
    assert (output / "train.txt").read_text(encoding="utf-8").splitlines() == ["a/n", "c/n"]


def test_text_in_no_word_has_a_tag(source):
    source.write_text("a b c\tn-B n-I O\n", encoding="utf-8")
    output = run(source)
    assert (output / "train.txt").read_text(encoding="utf-8") == "ab/n c/O\n"
    assert read_tags(output / "tag.dic") == ["O", "n", "n-B", "n-I"]


def test_the_example_data_is_what_the_command_makes(tmp_path):
    data = ROOT / "lac" / "data"
    corpus.main(["--input", str(data / "train.txt"), "--dev_input", str(data / "dev.txt"), "--output", str(tmp_path)])
    for name in ("train.txt", "dev.txt", "tag.dic"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_brackets_in_no_word_are_read_as_they_were_written():
    line = corpus.Line(parse_line("[ [ 图 ] 在 北 京\tO O O O O ns-B ns-I"), "here")
    again = line._replace(words=parse_line(corpus.as_text(line)))
    assert (again.text, again.gold) == (line.text, line.gold)
