"""elmo_chinese/text/batch.py: what becomes of sentences, ids and lengths, and errors where Paddle has none of use."""

from elmo_chinese.text.batch import batch_to_ids, checked_batch
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import paddle
import pytest
from conftest import LM


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(LM / "vocab.txt")


def test_sentences_become_padded_ids_lengths_and_a_mask(vocabulary):
    batch = batch_to_ids([["的", "没见过", "，"], [], ["，"]], vocabulary)
    word_ids, lengths = batch
    assert word_ids.tolist() == [[4, 2, 3], [0, 0, 0], [3, 0, 0]] and lengths.tolist() == [3, 0, 1]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert batch_to_ids([[]], vocabulary).word_ids.shape == [1, 1]


def test_raw_text_is_cut_along_the_words_of_the_vocabulary(vocabulary):
    word = next(word for word in vocabulary.words[3:] if len(word) > 1)
    batch = batch_to_ids([f"的{word} ，", ["的"]], vocabulary)
    assert batch.word_ids.tolist() == [vocabulary.encode(["的", word, "，"]), [4, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]


@pytest.mark.parametrize(
    "sentences, message",
    [
        ("的 ，", "sentences must be a list with at least one sentence in it, got '的 ，'"),
        ([], "at least one sentence"),
        ([["的"], ["的", 4]], "sentence 1 must be text or a list of words, got 4 in it"),
    ],
)
def test_what_is_no_list_of_words_is_an_error(vocabulary, sentences, message):
    with pytest.raises(ValueError, match=message):
        batch_to_ids(sentences, vocabulary)


@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "int8", "uint8"])
def test_whole_numbers_of_every_kind_will_do(kind):
    for make in (np.array, lambda rows, kind: paddle.to_tensor(np.array(rows, kind))):
        word_ids, lengths = checked_batch(make([[5, 8], [7, 0]], kind), make([2, 1], kind), 60)
        assert word_ids.dtype == lengths.dtype == paddle.int64
        assert word_ids.tolist() == [[5, 8], [7, 0]] and lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    "word_ids, lengths, message",
    [
        ([[5, 60]], None, "word_ids go up to 60, but the encoder has 60 words"),
        ([[5, 8, 13], [7, 9]], None, "word_ids have rows of 2 to 3 numbers.*batch_to_ids pads"),
        ([[5, 8], []], None, "word_ids have rows of 0 to 2 numbers"),
        ([[5, 8]], [[2], [1, 2]], "lengths have rows of 1 to 2 numbers"),
        ([[True, False]], None, "word_ids must be an int64 tensor of shape .batch, words., got"),
    ],
)
def test_what_cannot_be_ids_is_an_error_in_our_words(word_ids, lengths, message):
    with pytest.raises(ValueError, match=message):
        checked_batch(word_ids, lengths, 60)
