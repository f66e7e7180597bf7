"""reader.py against the original's batches and against plain Python."""

import gzip
import itertools
from collections import Counter

from elmo_chinese.text import token_cache
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
    """Return the file of each sentence of an epoch, in the order in which they are read."""
    found._rewind()
    firsts = found.text.starts[found.text.first_sentences]
    files = []
    while found._epoch == 0:
        files.append(int(np.searchsorted(firsts, found._next_sentence()[0], side="right")) - 1)
    return files


@pytest.mark.parametrize("mixed", [50, 150, 10_000])
def test_sentences_are_mixed_over_the_files_of_a_block(corpus, vocabulary, monkeypatch, mixed):
    monkeypatch.setattr(reader, "MIXED", mixed)
    found = make(corpus, vocabulary, shuffle=True)
    for block in found._make_blocks():  # at least one part, more if there is room for them
        words = [found.text.starts[found._bounds[part + 1]] - found.text.starts[found._bounds[part]] for part in block]
        assert len(block) == 1 or sum(words) <= mixed
    order = origins(found)
    assert Counter(order) == Counter(dict(enumerate(np.diff(found.text.first_sentences).tolist())))
    if mixed == 10_000:
        assert sum(one != other for one, other in zip(order, order[1:])) > 6  # of files, seven of them


def test_a_file_of_many_words_is_mixed_in_parts(tmp_path, vocabulary, monkeypatch):
    """What says the order of sentences takes memory, and is bounded however large a file is."""
    monkeypatch.setattr(reader, "MIXED", 100)
    (tmp_path / "large.txt").write_text("的 是\n" * 1000, encoding="utf-8")
    (tmp_path / "small.txt").write_text("的\n" * 3, encoding="utf-8")
    found = make(tmp_path, vocabulary, shuffle=True)
    blocks = found._make_blocks()
    assert max(found._bounds[part + 1] - found._bounds[part] for block in blocks for part in block) <= 26
    assert sorted(sum(blocks, [])) == list(range(41)) and Counter(origins(found)) == {0: 1000, 1: 3}
    in_order = make(tmp_path, vocabulary)
    assert isinstance(in_order._open_block(), range) and origins(in_order) == [0] * 1000 + [1] * 3


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


@pytest.mark.parametrize(
    "name, value",
    [
        ("position", [0, 7, 0]),
        ("position", [0, 0, 10**6]),
        ("position", [-1, 0, 0]),
        ("rows", [[10**6, 1, 0]] * 4),
        ("rows", [[1, 0, 1]] * 4),
        ("rows", [[0, 0, 0, 0]] * 4),
    ],
)
def test_a_position_outside_the_text_is_refused(corpus, vocabulary, name, value):
    found = make(corpus, vocabulary)
    with pytest.raises(InputError, match="outside the training text"):
        found.load_state_dict({**found.state_dict(), name: np.array(value)})
    for wrong in ({}, {**found.state_dict(), name: np.array("x")}):
        with pytest.raises(InputError, match="no position of a reader"):
            make(corpus, vocabulary).load_state_dict(wrong)


def test_a_packed_file_with_nothing_in_it_is_named(tmp_path, vocabulary):
    path = tmp_path / "empty.txt.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="empty.txt.gz is empty"):
        make(path, vocabulary)


def test_few_files_are_looked_at_for_a_step_however_many_there_are(corpus, vocabulary, monkeypatch):
    found, looked_at, stamp_of = make(corpus, vocabulary, shuffle=True), [], token_cache.stamp_of
    monkeypatch.setattr(token_cache, "stamp_of", lambda path: looked_at.append(path) or stamp_of(path))
    for _ in itertools.islice(found, 14):
        pass
    assert len(looked_at) == 3 * 14 and Counter(looked_at)[corpus / "part_3.txt"] == 2
