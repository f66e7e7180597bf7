"""elmo_chinese/text/vocabulary.py against plain counting, and files that are no vocabulary."""

from collections import Counter

from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import Vocabulary, count_words

import numpy as np
import pytest
from conftest import LM


@pytest.fixture
def vocabulary():
    return Vocabulary(LM / "vocab.txt")


def test_vocabulary_encodes_and_decodes(vocabulary):
    assert vocabulary.size == 60
    assert (vocabulary.start, vocabulary.end, vocabulary.unknown) == (0, 1, 2)
    assert vocabulary.encode(["的", "never seen", "，"]) == [4, 2, 3]
    assert vocabulary.decode([4, 0]) == ["的", "<S>"]
    assert len(vocabulary) == 60 and "的" in vocabulary and "never seen" not in vocabulary
    assert repr(vocabulary).startswith("Vocabulary(60 words: <S> </S> <UNK> ， 的")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty|empty vocabulary"),
        ("<S>\n</S>\n<UNK>\na\nb\na\n", "'a' stands on line 4 and again on line 6"),
        ("<S>\n</S>\na\n", "no line <UNK>"),
        ("<S>\n</S>\n<UNK>\n\na\n", "line 4 is blank"),
    ],
)
def test_bad_vocabulary_names_file_and_lines(tmp_path, content, message):
    path = tmp_path / "v.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        Vocabulary(path)
    assert str(path) in str(error.value)


def test_vocabulary_with_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes("\ufeff<S>\r\n</S>\r\n<UNK>\r\n的\r\n\r\n".encode())
    assert Vocabulary(path).words == ["<S>", "</S>", "<UNK>", "的"]


def test_build_counts_sorts_and_limits(tmp_path):
    (tmp_path / "a.txt").write_text("b a b <UNK> c\nb\u3000a\td\n", encoding="utf-8")
    words, covered = Vocabulary.build(tmp_path, min_count=1)
    assert words == ["<S>", "</S>", "<UNK>", "b", "a", "c", "d"]
    words, covered = Vocabulary.build(tmp_path, min_count=2)
    assert words == ["<S>", "</S>", "<UNK>", "b", "a"] and covered == pytest.approx(5 / 8)
    assert Vocabulary.build(tmp_path, max_size=4)[0] == ["<S>", "</S>", "<UNK>", "b"]


def test_counting_with_little_memory_counts_the_same(tmp_path):
    draw = np.random.default_rng(0)
    words = [f"词{number}" for number in draw.zipf(1.3, 20000) % 3000]
    for shard in range(100):
        part = words[200 * shard : 200 * shard + 200]
        (tmp_path / f"{shard:03d}").write_text("\n".join(map(" ".join, zip(part[::2], part[1::2]))), encoding="utf-8")
    expected = Counter(words)
    assert list(count_words(tmp_path, limit=50)) == sorted(expected.items())  # over 64 temporary files, so merged twice
    assert list(count_words(tmp_path)) == sorted(expected.items())
    chosen, covered = Vocabulary.build(tmp_path, min_count=3, max_size=103)
    ranked = sorted(expected, key=lambda word: (-expected[word], word))[:100]
    assert chosen[3:] == ranked and covered == sum(map(expected.get, ranked)) / 20000


@pytest.mark.parametrize("line", ["词 123", "词\t123", "词\u3000甲"])
def test_a_vocabulary_with_counts_is_refused(tmp_path, line):
    (tmp_path / "v.txt").write_text(f"<S>\n</S>\n<UNK>\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match="v.txt: line 4 has white space in it: .* one word a line"):
        Vocabulary(tmp_path / "v.txt")


def test_a_string_is_not_cut_into_characters(vocabulary):
    with pytest.raises(ValueError, match="a list of words is expected, got the string '太阳 是'; cut it"):
        vocabulary.encode("太阳 是")
