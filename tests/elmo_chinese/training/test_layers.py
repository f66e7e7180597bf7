"""elmo_chinese/training/layers.py: what a task says of its biLM."""

from elmo_chinese.text.vocabulary import vocabulary_from
from elmo_chinese.training.layers import unknown_lines

import numpy as np


def test_the_share_of_unknown_words_is_said_and_what_to_do():
    vocabulary = vocabulary_from(["<S>", "</S>", "<UNK>", "甲"])
    few, many = [np.array([3] * 19), np.array([2])], [np.array([3] * 18), np.array([2, 2])]
    assert unknown_lines([], None, "x") == []
    assert unknown_lines(few, vocabulary, "x") == ["unknown     1 of 20 words are <UNK> to the language model (5.00 %)"]
    (line,) = unknown_lines(many, vocabulary, "--cutter lac_model")
    assert "2 of 20 words" in line and line.endswith("preprocess.py sentences --cutter lac_model")
