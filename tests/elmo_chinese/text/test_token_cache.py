"""elmo_chinese/text/token_cache.py: text is encoded once, and what is unchanged is taken without being read."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from elmo_chinese.files import ABANDONED
from elmo_chinese.text import token_cache
from elmo_chinese.text.reading import InputError, find_files, read_lines
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import pytest
from conftest import LM

LONG_AGO = 10**18  # ns


@pytest.fixture
def vocabulary():
    return Vocabulary(LM / "vocab.txt")


@pytest.fixture
def corpus(tmp_path, vocabulary):
    """Seven files of random sentences, last changed long ago."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(7):
        sentences = [" ".join(rng.choice(vocabulary.words[3:], rng.integers(0, 9))) for _ in range(number + 1)]
        write(folder / f"part_{number}.txt", "\n".join(sentences) + "\n", number)
    return folder


def write(path, text, age=0):
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(LONG_AGO + age, LONG_AGO + age))


def encode(corpus, vocabulary, cache=None, **more):
    return token_cache.encode(find_files(corpus), vocabulary, cache or corpus.parent / "cache", **more)


def sentences(encoded):
    return [encoded.tokens[a:b].tolist() for a, b in zip(encoded.starts, encoded.starts[1:])]


def expected(corpus, vocabulary):
    lines = [line for path in find_files(corpus) for block in read_lines(path) for line in block]
    return [[0, *vocabulary.encode(line.split()), 1] for line in lines]


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are hashed or encoded, in their order."""
    names = []
    for name in ("_key_of", "_encode_file", "sha256"):

        def noting(of, function, path, *rest):
            names.append(f"{of} {path.name}")
            return function(path, *rest)

        monkeypatch.setattr(token_cache, name, partial(noting, name, getattr(token_cache, name)))
    return names


def test_all_files_are_one_text(corpus, vocabulary):
    encoded = encode(corpus, vocabulary)
    assert sentences(encoded) == expected(corpus, vocabulary)
    assert np.diff(encoded.first_sentences).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert [path.name for path in (corpus.parent / "cache").iterdir()] == [encoded.mapped[0][0].parent.name]


def test_what_is_unchanged_is_not_read(corpus, vocabulary, read):
    first = encode(corpus, vocabulary)
    assert len(read) == 14
    read.clear()
    again = encode(corpus, vocabulary)
    assert read == [] and again.corpus == first.corpus and sentences(again) == sentences(first)


def test_what_has_changed_is_read_and_nothing_else_is_encoded(corpus, vocabulary, read):
    before = encode(corpus, vocabulary)
    read.clear()
    os.utime(corpus / "part_1.txt")  # touched: the same text
    assert encode(corpus, vocabulary).corpus == before.corpus and read == ["_key_of part_1.txt"]
    write(corpus / "part_2.txt", "的\n是 的\n")
    assert sentences(encode(corpus, vocabulary)) == expected(corpus, vocabulary)
    write(corpus / "part_7.txt", "的 的\n")
    (corpus / "part_5.txt").unlink()
    changed = encode(corpus, vocabulary)
    assert sentences(changed) == expected(corpus, vocabulary) and changed.corpus != before.corpus
    assert [name for name in read if "encode" in name] == ["_encode_file part_2.txt", "_encode_file part_7.txt"]


def test_a_file_that_changes_again_within_a_tick_of_its_clock_is_noticed(corpus, vocabulary):
    path = corpus / "part_3.txt"
    path.write_text("的\n", encoding="utf-8")
    now = path.stat().st_mtime_ns
    encode(corpus, vocabulary)
    path.write_text("是\n", encoding="utf-8")
    os.utime(path, ns=(now, now))
    assert sentences(encode(corpus, vocabulary)) == expected(corpus, vocabulary)


def test_another_vocabulary_has_a_place_of_its_own(corpus, vocabulary, tmp_path):
    (tmp_path / "other.txt").write_text(vocabulary.text + "more\n", encoding="utf-8")
    other = Vocabulary(tmp_path / "other.txt")
    assert encode(corpus, vocabulary).corpus != encode(corpus, other).corpus
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_text_may_be_moved_with_its_cache(corpus, vocabulary, tmp_path, read):
    before = sentences(encode(corpus, vocabulary, corpus / ".token_cache"))
    read.clear()
    moved = corpus.rename(tmp_path / "moved")
    assert sentences(encode(moved, vocabulary, moved / ".token_cache")) == before and read == []


def test_one_of_several_encodes_and_the_others_wait(corpus, vocabulary, monkeypatch, read):
    slow = token_cache._make
    monkeypatch.setattr(token_cache, "_make", lambda *rest: time.sleep(0.2) or slow(*rest))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: encode(corpus, vocabulary), range(3)))
    assert len(read) == 14 and len({each.corpus for each in found}) == 1
    assert len(list((corpus.parent / "cache").iterdir())) == 1


def test_many_files_are_encoded_by_several_processes(corpus, vocabulary, monkeypatch, read, tmp_path):
    write(corpus / "part_3.txt", (corpus / "part_6.txt").read_text(encoding="utf-8"))  # twice the same
    monkeypatch.setattr(token_cache, "LARGE", 10)
    monkeypatch.setattr(token_cache, "available_cores", lambda: 3)
    monkeypatch.setattr(token_cache, "COPIED", 3)
    together = encode(corpus, vocabulary)
    assert sentences(together) == expected(corpus, vocabulary) and not [name for name in read if "encode" in name]
    assert sorted(os.listdir(together.mapped[0][0].parent)) == ["index.json", "starts.i8", "tokens.i4"]
    (corpus / "part_4.txt").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="part_4.txt: not UTF-8"):
        encode(corpus, vocabulary, tmp_path / "other")
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.parametrize("name", ["tokens.i4", "starts.i8", "index.json"])
@pytest.mark.parametrize("content", [None, b"", b"\0" * 8])
@pytest.mark.usefixtures("shown")
def test_a_torn_cache_mends_itself(corpus, vocabulary, capsys, name, content):
    path = encode(corpus, vocabulary).mapped[0][0].with_name(name)
    path.unlink() if content is None else path.write_bytes(content)
    capsys.readouterr()
    assert sentences(encode(corpus, vocabulary)) == expected(corpus, vocabulary)
    printed = capsys.readouterr().out
    assert f"warning: {path}" in printed and "it is made anew" in printed
    encode(corpus, vocabulary)
    assert capsys.readouterr().out == "" and len(os.listdir(path.parent.parent)) == 1


@pytest.mark.usefixtures("shown")
def test_verifying_finds_what_a_disk_has_lost(corpus, vocabulary, capsys, read, monkeypatch):
    monkeypatch.setattr(token_cache, "STARTED", time.time_ns() + 10**12)  # as if it was made before
    path, stamp = encode(corpus, vocabulary).mapped[0]
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(b"\1")
    os.utime(path, ns=(stamp[1], stamp[1]))
    encode(corpus, vocabulary)
    assert "made anew" not in capsys.readouterr().out
    assert sentences(encode(corpus, vocabulary, verify=True)) == expected(corpus, vocabulary)
    assert "tokens.i4: damaged (it is not what index.json says); it is made anew" in capsys.readouterr().out
    read.clear()
    encode(corpus, vocabulary, verify=True)
    assert len(read) == 9  # all seven files and both arrays
    monkeypatch.setattr(token_cache, "STARTED", 0)  # as in a process that waited meanwhile
    read.clear()
    encode(corpus, vocabulary, verify=True)
    assert read == []


def test_text_or_cache_that_changes_under_way_is_a_clear_stop(corpus, vocabulary):
    encoded = encode(corpus, vocabulary)
    path = corpus / "part_1.txt"
    os.utime(path)  # touched only
    encoded.check_file(1, vocabulary)
    write(path, "的\n")
    with pytest.raises(InputError, match="part_1.txt changed while it was being used; put it back"):
        encoded.check_file(1, vocabulary)
    path.unlink()
    with pytest.raises(InputError, match="part_1.txt vanished while it was being used"):
        encoded.check_file(1, vocabulary)
    for name in ("tokens.i4", "starts.i8"):
        encoded = encode(corpus, vocabulary)
        path = encoded.mapped[0][0].with_name(name)
        os.truncate(path, 0)  # to read it now would end the process
        with pytest.raises(InputError, match=f"{name} changed while it was being used; resume, it will be made anew"):
            encoded.check_cache()
        shutil.rmtree(path.parent)


def test_a_cache_that_cannot_be_written_is_named(corpus, vocabulary, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot write the token cache to .*; choose a --cache_dir"):
        encode(corpus, vocabulary, tmp_path / "file" / "cache")


def test_what_killed_processes_left_goes_after_a_day(corpus, vocabulary, tmp_path):
    (tmp_path / "cache").mkdir()
    for name, age in (("0" * 32 + ".4", ABANDONED + 60), ("1" * 32 + ".4", 0), ("mine", ABANDONED + 60)):
        folder = tmp_path / "cache" / f"{name}.0123abcd.tmp"
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    encode(corpus, vocabulary)
    assert {entry.name[:4] for entry in (tmp_path / "cache").glob("*.tmp")} == {"1111", "mine"}
