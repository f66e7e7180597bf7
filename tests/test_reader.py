"""reader.py against the original's batches and against plain Python."""

import gzip
import itertools
import os
import re
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from elmo_chinese.files import ABANDONED
from elmo_chinese.text.reading import InputError, find_files, read_lines
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import pytest
from conftest import LM

import reader
from reader import BidirectionalReader


@pytest.fixture
def vocabulary():
    return Vocabulary(LM / "vocab.txt")


@pytest.fixture
def corpus(tmp_path):
    """Seven small shards of random sentences over the golden vocabulary, some blank."""
    rng = np.random.default_rng(0)
    words = Vocabulary(LM / "vocab.txt").words[3:] + ["unseen"]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(7):
        sentences = [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(rng.integers(1, 12))]
        (folder / f"part_{number}.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return folder


def text(path):
    return [sentence.split() for block in read_lines(path) for sentence in block]


def make(corpus, vocabulary, rows=4, steps=5, **more):
    return BidirectionalReader(corpus, vocabulary, rows, steps, **more)


@pytest.mark.parametrize("part, count", [("train", 63), ("dev", 59)])
def test_batches_equal_golden(vocabulary, part, count, tmp_path):
    golden = np.load(LM / "batches.npz")
    names = ("token_ids", "next_token_id", "token_ids_reverse", "next_token_id_reverse")
    batches = make(LM / f"{part}.txt", vocabulary, cache_dir=tmp_path)
    assert len(golden[f"{part}/token_ids"]) == count
    for number, batch in enumerate(itertools.islice(batches, count)):
        for array, name in zip(batch, names):
            assert array.dtype == np.int64 and np.array_equal(array, golden[f"{part}/{name}"][number])


def test_single_pass_covers_every_word_exactly_once_in_both_directions(corpus, vocabulary):
    expected, bigrams = Counter(), Counter()
    for path in find_files(corpus):
        for words in text(path):
            ids = [0, *vocabulary.encode(words), 1]
            expected.update(ids[1:])
            bigrams.update(zip(ids, ids[1:]))
    found = make(corpus, vocabulary)
    assert found.tokens_per_epoch == sum(expected.values())
    for _ in range(2):  # a second pass starts from the beginning again
        seen, seen_bigrams, reverse = Counter(), Counter(), Counter()
        for (x, y, x_reverse, y_reverse), mask in found.single_pass():
            seen.update(y[mask].tolist())
            seen_bigrams.update(zip(x[mask].tolist(), y[mask].tolist()))
            reverse.update(zip(y_reverse[mask].tolist(), x_reverse[mask].tolist()))
        assert seen == expected and seen_bigrams == reverse == bigrams


def test_an_epoch_reads_every_sentence_once_then_goes_on(corpus, vocabulary):
    sentences = [vocabulary.encode(words) for path in find_files(corpus) for words in text(path)]
    one_row = make(corpus, vocabulary, rows=1, steps=1)
    words = [int(next_batch[1][0, 0]) for next_batch in itertools.islice(one_row, 2 * one_row.tokens_per_epoch)]
    assert words == 2 * [word for sentence in sentences for word in [*sentence, 1]]


def test_shuffle_is_a_function_of_seed_and_epoch_and_loses_nothing(corpus, vocabulary):
    def epochs(seed):
        one_row = make(corpus, vocabulary, rows=1, steps=1, shuffle=True, seed=seed)
        words = [int(batch[1][0, 0]) for batch in itertools.islice(one_row, 2 * one_row.tokens_per_epoch)]
        return words[: one_row.tokens_per_epoch], words[one_row.tokens_per_epoch :]

    first, second = epochs(1)
    assert (first, second) == epochs(1) and first != second and first != epochs(2)[0]
    in_order = make(corpus, vocabulary, rows=1, steps=1)
    plain = [int(batch[1][0, 0]) for batch in itertools.islice(in_order, in_order.tokens_per_epoch)]

    def sentences(words):
        return Counter(tuple(group) for end, group in itertools.groupby(words, key=lambda word: word == 1) if not end)

    assert sentences(first) == sentences(second) == sentences(plain) and first != plain


def origins(found):
    """Return the shard of each sentence of an epoch, in the order in which they are read."""
    found._rewind()
    shards = []
    while found._epoch == 0:
        shards.append(found._next_sentence(set())[0])
    return shards


@pytest.mark.parametrize("mixed", [1, 150, 10_000])
def test_sentences_are_mixed_over_the_shards_of_a_block(corpus, vocabulary, monkeypatch, mixed):
    monkeypatch.setattr(reader, "MIXED", mixed)
    found = make(corpus, vocabulary, shuffle=True)
    words = [len(shard.tokens) for shard in found.shards]
    for block in found._make_blocks():  # at least one shard, more if there is room for them
        assert len(block) == 1 or sum(words[index] for index in block) <= mixed
    order = origins(found)
    assert sorted(order) == [index for index, shard in enumerate(found.shards) for _ in shard.starts[1:]]
    changes = sum(one != other for one, other in zip(order, order[1:]))
    assert changes == 6 if mixed == 1 else changes > 6  # of shards, seven of them


def test_a_position_of_before_shards_were_mixed_goes_on_as_then(corpus, vocabulary):
    older = make(corpus, vocabulary, shuffle=True, seed=5)
    older.mixed = 0
    expected = [next(iter(older)) for _ in range(30)]
    order = origins(older)
    assert sum(one != other for one, other in zip(order, order[1:])) == 6  # one shard after the other
    older._rewind()
    for _ in range(17):
        next(iter(older))
    state = older.state_dict()
    state["order"] = state["order"][:2]
    again = make(corpus, vocabulary, shuffle=True, seed=5)
    again.load_state_dict(state)
    assert all(map(np.array_equal, sum(expected[17:], ()), sum((next(iter(again)) for _ in range(13)), ())))
    assert again.state_dict()["order"].tolist() == [1, 5, 0]


@pytest.mark.parametrize("shuffle", [False, True])
def test_position_goes_on_exactly_on_any_number_of_processes(corpus, vocabulary, shuffle):
    def readers(world_size):
        more = dict(shuffle=shuffle, seed=5, world_size=world_size)
        return [make(corpus, vocabulary, 8 // world_size, 5, rank=rank, **more) for rank in range(world_size)]

    def joined(parts):
        batches = [next(iter(part)) for part in parts]
        return [np.concatenate(arrays) for arrays in zip(*batches)]

    whole = readers(1)
    expected = [joined(whole) for _ in range(30)]
    for world_size in (1, 2, 4):
        parts = readers(world_size)
        for step in range(17):
            assert all(map(np.array_equal, joined(parts), expected[step]))
        state = parts[-1].state_dict()
        for other in (1, 2, 8):
            again = readers(other)
            for part in again:
                part.load_state_dict(state)
            assert all(all(map(np.array_equal, joined(again), expected[step])) for step in range(17, 30))


def test_position_of_other_text_rows_or_seed_is_refused(corpus, vocabulary):
    state = make(corpus, vocabulary).state_dict()
    with pytest.raises(InputError, match="4 rows, now it is 6"):
        make(corpus, vocabulary, rows=6).load_state_dict(state)
    with pytest.raises(InputError, match="shuffle and seed"):
        make(corpus, vocabulary, shuffle=True).load_state_dict(state)
    (corpus / "part_3.txt").write_text("的\n", encoding="utf-8")
    with pytest.raises(InputError, match="text or the vocabulary"):
        make(corpus, vocabulary).load_state_dict(state)


def test_cache_is_used_again_and_follows_text_and_vocabulary(corpus, vocabulary, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    make(corpus, vocabulary, cache_dir=cache)
    made = set(os.listdir(cache))
    assert len(made) == 7
    monkeypatch.setattr(reader, "_write_encoded", None)  # would raise if it were called again
    make(corpus, vocabulary, cache_dir=cache)
    monkeypatch.undo()
    (corpus / "part_0.txt").write_text("的\n", encoding="utf-8")
    assert make(corpus, vocabulary, cache_dir=cache).tokens_per_epoch > 0
    assert len(set(os.listdir(cache)) - made) == 1
    other = tmp_path / "v.txt"
    other.write_text(vocabulary.text + "more\n", encoding="utf-8")
    make(corpus, Vocabulary(other), cache_dir=cache)
    assert len(os.listdir(cache)) == 15


def test_another_process_finishing_first_is_fine(corpus, vocabulary, tmp_path, monkeypatch):
    write, calls = reader._write_encoded, []

    def slow_writer(path, vocabulary, folder):
        calls.append(path)
        time.sleep(0.2)
        write(path, vocabulary, folder)

    monkeypatch.setattr(reader, "_write_encoded", slow_writer)
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(reader.encode_shard, corpus / "part_1.txt", vocabulary, tmp_path) for _ in range(3)]
        shards = [task.result() for task in tasks]
    assert len(calls) == 1 and sorted(os.listdir(tmp_path)) == [f"{shards[0].key}.3", "corpus"]
    assert {len(shard.starts) - 1 for shard in shards} == {len(text(corpus / "part_1.txt"))}


@pytest.mark.parametrize("name", [*reader.CACHE_FILES, "SHA256SUMS"])
@pytest.mark.parametrize("content", [None, b"", b"\0" * 8])
def test_a_torn_cache_mends_itself(corpus, vocabulary, tmp_path, capsys, name, content):
    shard = reader.encode_shard(corpus / "part_1.txt", vocabulary, tmp_path)
    tokens = shard.tokens.tolist()
    path = tmp_path / f"{shard.key}.3" / name
    path.unlink() if content is None else path.write_bytes(content)
    capsys.readouterr()
    found = reader.encode_shard(corpus / "part_1.txt", vocabulary, tmp_path)
    assert found.tokens.tolist() == tokens and re.search(f"warning: .*{name}.*it is made anew", capsys.readouterr().out)
    reader.encode_shard(corpus / "part_1.txt", vocabulary, tmp_path)
    assert capsys.readouterr().out == "" and sorted(os.listdir(tmp_path)) == [f"{shard.key}.3", "corpus"]


def test_text_or_cache_that_changes_under_way_is_a_clear_stop(corpus, vocabulary, tmp_path):
    found = make(corpus, vocabulary, cache_dir=tmp_path / "cache")
    batches = iter(found)
    next(batches)
    text = find_files(corpus)[0]
    os.utime(text, (1, 1))  # touched only
    next(batches)
    text.write_bytes(text.read_bytes()[:-1] + b" ")
    with pytest.raises(InputError, match="part_0.txt changed while it was being used; put it back"):
        next(batches)
    for name in ("tokens.i4", "starts.i8"):
        found = make(corpus, vocabulary, cache_dir=tmp_path / "cache")
        path = tmp_path / "cache" / f"{found.shards[0].key}.3" / name
        os.truncate(path, 0)  # to read it now would end the process
        with pytest.raises(InputError, match=f"{name} changed while it was being used; resume, it will be made anew"):
            next(iter(found))
        shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    "name, value",
    [
        ("position", [0, 7, 0]),
        ("position", [0, 0, 10**6]),
        ("position", [-1, 0, 0]),
        ("rows", [[0, 10**6, 1, 0]] * 4),
        ("rows", [[0, 1, 0, 1]] * 4),
        ("rows", [[9, 0, 0, 0]] * 4),
        ("rows", [[0, 0, 0]] * 4),
    ],
)
def test_a_position_outside_the_text_is_refused(corpus, vocabulary, name, value):
    found = make(corpus, vocabulary)
    with pytest.raises(InputError, match="outside the training text"):
        found.load_state_dict({**found.state_dict(), name: np.array(value)})
    for wrong in ({}, {**found.state_dict(), name: np.array("x")}):
        with pytest.raises(InputError, match="no position of a reader"):
            make(corpus, vocabulary).load_state_dict(wrong)


def test_what_killed_processes_left_goes_after_a_day(corpus, vocabulary, tmp_path):
    names = [f"{'ab' * 16}.2.0123abcd.tmp", f"{'cd' * 16}.2.0123abcd.tmp", "mine.0123abcd.tmp"]
    for name, age in zip(names, (ABANDONED + 60, 0, ABANDONED + 60)):
        folder = tmp_path / name
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    reader.encode_shard(corpus / "part_1.txt", vocabulary, tmp_path)
    assert {entry.name for entry in tmp_path.glob("*.tmp")} == set(names[1:])


def test_a_packed_file_with_nothing_in_it_is_named(tmp_path, vocabulary):
    path = tmp_path / "empty.txt.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="empty.txt.gz is empty"):
        make(path, vocabulary)
