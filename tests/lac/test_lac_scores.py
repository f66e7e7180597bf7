"""lac/scores.py: spans and figures worked out by hand."""

import pytest

from lac.scores import Span, describe, figures, score, spans, split_tag


def found(text):
    """Return the spans of `word/tag word/tag …` as text."""
    words, tags = zip(*[token.rsplit("/", 1) for token in text.split()])
    joined = "".join(words)
    return [f"{joined[span.start : span.end]}/{span.tag}" for span in spans(words, tags)]


@pytest.mark.parametrize(
    "tokens, expected",
    {
        "bare tags are words of one token": ("我/r 爱/v 北京/ns", ["我/r", "爱/v", "北京/ns"]),
        "B I I": ("中国/nt-B 人民/nt-I 银行/nt-I 说/v", ["中国人民银行/nt", "说/v"]),
        "B B are two": ("江/nr-B 李/nr-B 鹏/nr-I", ["江/nr", "李鹏/nr"]),
        "B alone": ("江/nr-B 说/v", ["江/nr", "说/v"]),
        "I at the start starts a word": ("泽民/nr-I 说/v", ["泽民/nr", "说/v"]),
        "I after another type starts a word": ("北京/ns-B 大学/nt-I 的/u", ["北京/ns", "大学/nt", "的/u"]),
        "I after a bare tag of its type starts a word": ("江/nr 泽民/nr-I", ["江/nr", "泽民/nr"]),
        "B I E S": ("长/-B 江/-I 大/-I 桥/-E 在/-S", ["长江大桥/", "在/"]),
        "E ends the word": ("大/n-B 桥/n-E 上/n-I", ["大桥/n", "上/n"]),
        "E alone": ("桥/n-E", ["桥/n"]),
        "S ends the word": ("大/n-S 桥/n-I", ["大/n", "桥/n"]),
        "O is no word and ends the one before": ("大/n-B 的/O 桥/n-I O/O", ["大/n", "桥/n"]),
        "a dash inside a type": ("大/a-b-B 桥/a-b-I 小/B-n", ["大桥/a-b", "小/B-n"]),
    }.values(),
)
def test_spans_from_tag_names(tokens, expected):
    assert found(tokens) == expected


def test_no_tokens_have_no_spans():
    assert spans([], []) == []


def test_offsets_count_characters():
    assert spans(["中国", "人民", "万岁"], ["n-B", "n-I", "v"]) == [Span(0, 4, "n"), Span(4, 6, "v")]


@pytest.mark.parametrize(
    "name, expected", [("O-B", ("O", "B")), ("n-", ("n-", "S")), ("-S", ("", "S")), ("B", ("B", "S"))]
)
def test_only_the_four_endings_are_endings(name, expected):
    assert split_tag(name) == expected


def test_scores_by_hand():
    # 中国 人民 银行 说: one name missed because it was cut in two, of which one part has a wrong type too
    first = ([Span(0, 6, "nt"), Span(6, 7, "v")], [Span(0, 2, "ns"), Span(2, 6, "nt"), Span(6, 7, "v")])
    # 江泽民 说 了: all cuts right, one type wrong
    second = (
        [Span(0, 3, "nr"), Span(3, 4, "v"), Span(4, 5, "u")],
        [Span(0, 3, "nr"), Span(3, 4, "n"), Span(4, 5, "u")],
    )
    scores = score([first, second])
    assert scores.overall == figures(gold=5, found=6, right=3)
    assert scores.overall[:3] == pytest.approx((3 / 6, 3 / 5, 6 / 11))
    assert scores.segmentation == figures(gold=5, found=6, right=4)
    assert scores.by_tag["v"][:3] == pytest.approx((1, 1 / 2, 2 / 3))
    assert scores.by_tag["nt"] == figures(1, 1, 0) and scores.by_tag["nt"].f1 == 0
    assert scores.by_tag["ns"] == figures(0, 1, 0) and scores.by_tag["n"] == figures(0, 1, 0)
    assert sum(row.right for row in scores.by_tag.values()) == 3
    assert list(scores.by_tag) == ["v", "nr", "nt", "u", "n", "ns"]  # most frequent first


def test_nothing_found_and_nothing_there():
    assert score([([Span(0, 1, "n")], [])]).overall == figures(1, 0, 0)
    assert score([([], [])]).overall[:3] == (0, 0, 0)
    assert score([]).by_tag == {}


def test_the_table_has_a_line_for_each_tag():
    lines = describe(score([([Span(0, 1, "n")], [Span(0, 1, "n")])])).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["all", "segmentation", "n"] and "100.00" in lines[1]
