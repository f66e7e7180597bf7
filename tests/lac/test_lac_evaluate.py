"""lac/evaluate.py: scores worked out by hand."""

import pytest

from lac.evaluate import describe, figures, score
from lac.lines import Span


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
