"""preprocess.py: raw text to shards and vocabulary."""

import re

import jieba
import pytest
from conftest import ROOT

import preprocess
from preprocess import split_sentences
from reader import Vocabulary


@pytest.mark.parametrize(
    "paragraph, expected",
    [
        ("今天下雨。明天呢？走吧！", ["今天下雨。", "明天呢？", "走吧！"]),
        ("他说：“你好。”她笑了。", ["他说：“你好。”", "她笑了。"]),
        ("圆周率是3.14……还有呢", ["圆周率是3.14……还有呢"]),
        ("真的？！（是的。）好", ["真的？！", "（是的。）", "好"]),
        ("没有标点", ["没有标点"]),
        ("  \u3000 ", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(paragraph, expected):
    assert split_sentences(paragraph) == expected


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text("北京是中国的首都。上海在海边。\n\n上海在海边。猫爱吃鱼！\n", encoding="utf-8")
    (folder / "b.txt").write_text("\n\n".join(f"这是第{number}个文件。" for number in range(200)), encoding="utf-8")
    return folder


def lines(folder):
    return [line for path in sorted(folder.glob("*.txt")) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shards_hold_every_sentence_once_and_nothing_is_lost(raw, tmp_path, capsys):
    out = tmp_path / "out"
    preprocess.main(
        ["sentences", "--input", str(raw), "--output", str(out), "--shard_size", "2KB", "--dev_fraction", "0.2"]
    )
    train, dev = lines(out / "train"), lines(out / "dev")
    assert len(set(train + dev)) == len(train + dev) == 203
    assert "1 repeated ones dropped" in capsys.readouterr().out
    assert 20 < len(dev) < 60 and len(list((out / "train").iterdir())) > 1
    assert {line.replace(" ", "") for line in train + dev} >= {"北京是中国的首都。", "猫爱吃鱼！"}
    assert " ".join(jieba.cut("北京是中国的首都。")) in train + dev


def test_dev_is_the_same_every_time_and_whole_documents(raw, tmp_path):
    for name in ("one", "two"):
        preprocess.main(["sentences", "--input", str(raw), "--output", str(tmp_path / name), "--dev_fraction", "0.3"])
    assert lines(tmp_path / "one" / "dev") == lines(tmp_path / "two" / "dev")


def test_vocabulary_command(raw, tmp_path, capsys):
    path = tmp_path / "v" / "vocabulary.txt"
    (raw / "c.txt").write_text("猫 爱 鱼\n猫 爱\n", encoding="utf-8")
    preprocess.main(["vocabulary", "--input", str(raw / "c.txt"), "--output", str(path), "--min_count", "2"])
    assert Vocabulary(path).words == ["<S>", "</S>", "<UNK>", "爱", "猫"]
    assert "5 words, 80.00 % of the text covered" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sentences", "--input", "nowhere", "--output", "OUT"], "no file matches 'nowhere'"),
        (["sentences", "--input", "RAW", "--output", "RAW/a.txt"], "cannot write .*Not a directory"),
        (["vocabulary", "--input", "RAW/gbk", "--output", "OUT"], "gbk: not UTF-8: line 1, byte 0"),
    ],
)
def test_bad_input_is_a_clear_error(raw, tmp_path, capsys, arguments, message):
    (raw / "gbk").write_bytes("中文".encode("gb18030"))
    arguments = [a.replace("RAW", str(raw)).replace("OUT", str(tmp_path / "out")) for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        preprocess.main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and re.search(message, error) and "Traceback" not in error


def test_nothing_is_overwritten(raw, tmp_path, capsys):
    arguments = ["sentences", "--input", str(raw), "--output", str(tmp_path / "out")]
    preprocess.main(arguments)
    before = lines(tmp_path / "out" / "train")
    with pytest.raises(SystemExit):
        preprocess.main(arguments)
    assert "train is not empty" in capsys.readouterr().err and lines(tmp_path / "out" / "train") == before


def test_the_projects_own_corpus_is_what_data_readme_says():
    train, dev = lines(ROOT / "data" / "train"), lines(ROOT / "data" / "dev")
    raw = [line for line in lines(ROOT / "data" / "text") if line]
    assert len(raw) >= 500 and len(list((ROOT / "data" / "text").iterdir())) >= 20
    assert len(set(train + dev)) == len(train + dev) == len(set(raw)) == len(raw)
    assert {line.replace(" ", "") for line in train + dev} == {line.replace(" ", "") for line in raw}
    words, _ = Vocabulary.build(ROOT / "data" / "train", min_count=2)
    assert Vocabulary(ROOT / "data" / "vocabulary.txt").words == words
