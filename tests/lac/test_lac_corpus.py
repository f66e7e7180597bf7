"""lac/corpus.py: from the People's Daily format to tagged lines."""

import re

from elmo_chinese import files

import pytest
from conftest import ROOT, run_python

from lac import corpus
from lac.corpus import held_out_line, join_names, parse_line, project, split, training_line
from lac.reader import read_sentences, read_tags
from lac.scores import spans


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
    assert text(parse_line(line)) == expected


@pytest.mark.parametrize(
    "line, message",
    [
        ("迈向/v 充满", "expected word/type, found '充满'"),
        ("迈向/v /v", "expected word/type, found '/v'"),
        ("迈向/", "expected word/type"),
        ("[中央/n 电台/n", "`\\[` without a `\\]` after it at '中央'"),
        ("中央/n 电台/n]nt", "`\\]` without a `\\[` before it at '电台/n\\]nt'"),
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


@pytest.fixture
def cuts(monkeypatch):
    """Cut text at the blanks of what a test says."""

    def cuts(tokens):
        monkeypatch.setattr(corpus, "cut", lambda text: tokens.split())

    return cuts


def test_lines_as_in_the_docstring(cuts):
    words = [("中央人民广播电台", "nt"), ("迎", "v"), ("新年", "t")]
    cuts("中央 人民 广播 电台 迎新 年")
    tags = "nt-B nt-I nt-I nt-I v t"
    assert training_line(words) == "中央 人民 广播 电台 迎 新 年\tnt-B nt-I nt-I nt-I v t-B t-I"
    assert held_out_line(words) == f"中央 人民 广播 电台 迎新 年\t{tags}\t中央人民广播电台/nt 迎/v 新年/t"
    cuts("中央 人民 广播 电台 迎 新年")
    assert training_line(words) == f"中央 人民 广播 电台 迎 新年\t{tags}"


def test_a_token_over_many_words_has_the_tag_of_its_largest_part():
    words = [("a", "x"), ("bcd", "y"), ("e", "z"), ("f", "z")]
    assert project(words, ["abcde", "f"]) == ["y", "z"]
    assert project(words, ["ab", "cd", "ef"]) == ["x", "y", "z"]
    assert project(words, ["a", "b", "cd", "e", "f"]) == ["x", "y-B", "y-I", "z", "z"]


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
        sentences, problems = read_sentences(output / f"{name}.txt", tags)
        counts[name] = len(sentences)
        for sentence in sentences:
            joined = "".join(sentence.words)
            words = [joined[span.start : span.end] + "/" + span.tag for span in sentence.gold]
            assert words[1:] == "届/q 江泽民/nr 主席/n 在/p 北京大学/nt 讲话/v".split()
            if name == "train":
                assert spans(sentence.words, sentence.tags) == sentence.gold
    assert counts == {"train": 27, "dev": 5, "test": 7}


def test_the_split_is_drawn_by_seed_and_is_disjoint(source):
    lines, _ = corpus.read_corpus([str(source)], "error")
    parts = split(lines, dev=5, test=7, train=0, seed=1)
    assert sorted(map(text, sum(parts, []))) == sorted(map(text, lines))
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


def test_two_at_once_do_not_mix(source, tmp_path, monkeypatch, capsys):
    source.write_text("a/n\n", encoding="utf-8")
    output = run(source)
    monkeypatch.setattr(files, "LOCK_TRIES", 0)
    with files.lock_folder(output, ""):  # the other one
        with pytest.raises(SystemExit) as stopped:
            run(source)
    assert stopped.value.code == 1 and "another process is writing to " in capsys.readouterr().err


def test_bad_lines_can_be_skipped(source, capsys):
    source.write_text("a/n\nb\nc/n\n", encoding="utf-8")
    output = run(source, "--on_bad_line", "skip")
    assert "1 lines skipped, the first: " in capsys.readouterr().out
    assert (output / "train.txt").read_text(encoding="utf-8").splitlines() == ["a\tn", "c\tn"]


def test_jieba_s_tokens_are_the_text_and_the_example_data_is_what_the_command_makes(tmp_path):
    strange = "中国\u3000人 民😀a b\x00c\r１２"
    assert "".join(corpus.cut(strange)) == strange
    done = run_python(
        *("-m", "lac.corpus", "--input", "lac/data/gold_train.txt", "--dev_input", "lac/data/gold_dev.txt"),
        *("--output", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    for name in ("train.txt", "dev.txt", "tag.dic"):
        assert (tmp_path / name).read_bytes() == (ROOT / "lac" / "data" / name).read_bytes()
