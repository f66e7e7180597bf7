"""mrc/texts.py: places of words and characters against a search through all of them, on texts with anything in them."""

import itertools
import random
from collections import Counter

from elmo_chinese.text.corpus.sentences import split_sentences
from elmo_chinese.text.reading import INVISIBLE

import numpy as np
import pytest

from mrc.texts import (
    HALF_WIDTH,
    best_span,
    blank,
    cut,
    limit,
    most_related,
    nearest,
    recall,
    segmented,
    windows,
    words_around,
)

# Words, marks, full width, what ends sentences and lines, white space of all kinds, and what is odd in Unicode.
PARTS = [
    *("长江", "发源于", "青藏高原", "ＡＢＣ", "abc", "３．５", "3.5", "1998年", "的", "𠀀", "🀄", "é", "e\u0301", "ﬁ"),
    *("。", "！”", "？", "，", "《", "》", "…", "……", ".", "!", "(", ")", "“", "\u200b", "\ufeff", "\0", "İ", "ß"),
    *(" ", "\u3000", "\t", "\n", "\r\n", "\r", "\n\n", "\u2028", "\x85", "\x0b", "\x1c", "\xa0", "a" * 30),
]


def random_text(draw, most=30):
    """Return a text of parts, sometimes of characters from all of Unicode that can be written."""
    if draw.random() < 0.3:
        codes = (draw.choice([0x80, 0x3000, 0xA000, 0x110000]) for _ in range(draw.randrange(most)))
        text = "".join(chr(draw.randrange(code)) for code in codes)
        return text.encode("utf-8", "ignore").decode("utf-8")
    return "".join(draw.choices(PARTS, k=draw.randrange(most)))


def texts(seed, count=300):
    draw = random.Random(seed)
    return [(draw, random_text(draw)) for _ in range(count)]


def visible(text):
    return "".join(INVISIBLE.sub("", text).split())


def sentences(text):
    """Return the sentences of a text, each line by itself."""
    lines = text.replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n").replace("\x85", "\n").split("\n")
    return list(itertools.chain.from_iterable(map(split_sentences, lines)))


def check(text):
    """Assert what is true of any text with its words."""
    assert len(text.words) == len(text.starts) == len(text.ends) == sum(text.sentences)
    assert text.starts.dtype == text.ends.dtype == np.int64 and 0 not in text.sentences
    assert [text.text[start:end] for start, end in zip(text.starts, text.ends)] == text.words
    assert (text.ends[:-1] <= text.starts[1:]).all()


def test_words_are_pieces_of_the_text_and_only_what_is_not_seen_is_left_out():
    for _, given in texts(0):
        text = cut(given)
        check(text)
        assert text.text == given and "".join(text.words) == visible(given)
        assert all(word.split() == [word] for word in text.words)
        parts = np.split(np.array(text.words, dtype=object), np.cumsum(text.sentences)[:-1])
        assert ["".join(part) for part in parts if len(part)] == [visible(s) for s in sentences(given) if visible(s)]


def test_words_are_those_of_the_dictionary_in_half_width():
    text = cut("ＡＢＣ公司在长江大桥旁。　李小龙住３号")
    assert text.words == ["ＡＢＣ", "公司", "在", "长江大桥", "旁", "。", "李小龙", "住", "３", "号"]
    assert text.sentences == [6, 4] and text.words[0].translate(HALF_WIDTH) == "ABC"
    assert text.piece(1, 3) == "公司在长江大桥" and text.piece(5, 6) == "。　李小龙"
    assert cut("郗鉴").words == ["郗", "鉴"]  # none that nobody knows
    assert cut("").words == cut(" \n\u3000").words == [] and cut("").sentences == []


def test_a_text_of_100_000_characters_without_a_sign_is_cut():
    text = cut("长江" * 50_000)
    check(text)
    assert len(text.words) == 50_000 and limit(text, 500).words == ["长江"] * 500


def test_segmented_words_are_found_in_their_text():
    for draw, given in texts(1):
        words = [word for word in cut(given).words if draw.random() < 0.8]  # not all of the text need be a word
        text = segmented(words, given)
        check(text)
        assert text.words == words and (text.text == given or not words)
        assert segmented(cut(given).words, given).words == cut(given).words
        alone = segmented(words)
        check(alone)
        assert alone.text == "".join(words) and alone.words == words


def test_segmented_words_that_do_not_stand_in_the_text_are_the_text():
    for words, given in ((["长", "江"], "江长"), (["长", "江"], "长"), (["长", "长"], "长江"), (["长"], "")):
        text = segmented(words, given)
        check(text)
        assert text.text == "".join(words) and text.words == words
    assert segmented(["长", "江"], "长\n江。").text == "长\n江。"


def test_words_of_no_characters_or_with_white_space_keep_their_numbers():
    text = segmented(["", "长 江", "", "流", ""], "长 江流")
    check(text)
    assert text.piece(1, 3) == "长 江流" and text.piece(0, 0) == ""


def test_the_limit_takes_words_from_the_end():
    for draw, given in texts(2):
        whole, most = cut(given), draw.randint(1, 12)
        text = limit(whole, most)
        check(text)
        assert text.words == whole.words[:most] and text.text == given
        assert (text is whole) == (len(whole.words) <= most)
        for left, before in zip(text.sentences[:-1], whole.sentences):
            assert left == before


def test_windows_hold_each_word_once_and_end_where_sentences_do():
    for draw, given in texts(7):
        whole, most = cut(given), draw.randint(1, 12)
        parts = windows(whole, most)
        assert [word for one in parts for word in one.words] == whole.words
        assert all(0 < len(one.words) <= most for one in parts) or not whole.words
        for one in parts:
            check(one)
            assert one.text == given
        bounds, ends = np.cumsum([0, *(len(one.words) for one in parts)]), {*np.cumsum(whole.sentences)}
        for first, last in zip(bounds, bounds[1:]):  # as many sentences as fit, or else as many words
            fit = [end for end in ends if first < end <= first + most]
            assert last == (max(fit) if fit else min(first + most, len(whole.words)))
    parts = windows(segmented(list("甲乙。丙。丁戊己")), 6)
    assert [one.words for one in parts] == [list("甲乙。丙。"), list("丁戊己")]


def test_words_around_equal_a_search_through_all_runs():
    for draw, given in texts(3, 400):
        text = limit(cut(given), draw.randint(1, 15))
        places = [place for place, character in enumerate(given) if not blank(character)]
        if not places:
            continue
        start, last = sorted(draw.choices(places, k=2))
        wanted = {place for place in places if start <= place <= last}
        runs = [
            (to - first, first, to)
            for first, to in itertools.combinations_with_replacement(range(len(text.words)), 2)
            if wanted <= set(range(text.starts[first], text.ends[to]))
        ]
        expected = min(runs)[1:] if runs else None
        assert words_around(text, start, last + 1) == expected, (given, start, last)


def test_an_uneven_answer_is_widened_to_whole_words():
    text = cut("他在长江大桥旁住")
    assert text.words == ["他", "在", "长江大桥", "旁", "住"]
    assert words_around(text, 2, 4) == (2, 2) and text.piece(2, 2) == "长江大桥"
    assert words_around(text, 5, 7) == (2, 3) and words_around(text, 0, 8) == (0, 4)
    assert words_around(limit(text, 2), 1, 3) is None and words_around(limit(text, 3), 2, 6) == (2, 2)
    assert words_around(cut(""), 0, 1) is None


def test_an_answer_is_found_again_nearest_to_where_it_should_stand():
    draw = random.Random(4)
    for _ in range(300):
        text, answer = ("".join(draw.choices("甲乙.", k=draw.randint(1, n))) for n in (20, 3))
        places = [place for place in range(len(text)) if text[place : place + len(answer)] == answer]
        start = draw.randint(-5, 25)
        found = nearest(text, answer, start)
        if not places:
            assert found == -1
            continue
        assert found in places and abs(found - start) == min(abs(place - start) for place in places)
    assert nearest("(.*)", "(.*)", 9) == 0  # no pattern
    assert nearest("长江", "江", -1) == 1 and nearest("长江", "江", 10**30) == 1  # -1 is not the last place


def test_recall_counts_words_as_often_as_they_stand_there():
    assert recall("的的了", "的的的是") == 2 / 4 and recall("", "的") == recall("的", "") == 0


def test_the_most_related_paragraph_equals_a_search():
    draw = random.Random(5)
    for _ in range(200):
        rows = [draw.choices("甲乙丙丁", k=draw.randrange(8)) for _ in range(draw.randint(1, 5))]
        wanted = draw.choices("甲乙丙", k=draw.randint(1, 4))
        shares = [sum(min(row.count(word), wanted.count(word)) for word in set(wanted)) for row in rows]
        best = [number for number, share in enumerate(shares) if share == max(shares)]
        shortest = min(len(rows[number]) for number in best)
        expected = next(number for number in best if len(rows[number]) == shortest)
        assert most_related(rows, wanted) == expected


def f1(words, answer):
    return 2 * sum((Counter(words) & Counter(answer)).values()) / (len(words) + len(answer))


@pytest.mark.parametrize("letters", ["甲乙", "甲乙丙丁戊己庚"])
def test_the_best_span_equals_a_search_through_all(letters):
    draw = random.Random(6)
    for _ in range(200):
        words = draw.choices(letters, k=draw.randrange(15))
        answer = draw.choices(letters + "辛", k=draw.randint(1, 6))
        spans = [
            (-f1(words[first : last + 1], answer), first, last)
            for first, last in itertools.combinations_with_replacement(range(len(words)), 2)
            if words[first] in answer
        ]
        expected = min(spans, default=(0, 0, 0))
        assert best_span(words, answer) == (pytest.approx(-expected[0]), *expected[1:])
