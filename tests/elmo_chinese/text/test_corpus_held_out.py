"""elmo_chinese/text/corpus/held_out.py: which lines go to dev."""

from elmo_chinese.text.corpus.held_out import held_out

import numpy as np
import pytest


def test_the_held_out_share():
    texts = [(True, [f"第{number}篇"]) for number in range(5000)]
    held = sum(is_dev for _, is_dev, _ in held_out(texts, 0.2, float("inf")))
    assert 900 < held < 1100 and not any(is_dev for _, is_dev, _ in held_out(texts, 0, float("inf")))


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.3])
def test_a_long_document_is_drawn_from_in_blocks_of_lines(fraction):
    """One block of 1 / fraction is held out, in whatever pieces the document comes."""
    for number in range(20):
        lines = [f"第{number}本的第{line}行。" for line in range(2000)]
        length = len("".join(lines))
        drawn = list(held_out([(True, lines)], fraction, 100))
        assert [starts for starts, _, _ in drawn] == [True] + [False] * (len(drawn) - 1)
        assert [line for *_, block in drawn for line in block] == lines
        assert all(100 <= len("".join(block)) < 120 for *_, block in drawn[:-1])
        held = [place for place, (_, is_dev, _) in enumerate(drawn) if is_dev]
        assert all(int(1 / fraction) <= gap <= int(1 / fraction) + 1 for gap in np.diff([-1, *held, len(drawn)])[1:-1])
        assert sum(len("".join(drawn[n][2])) for n in held) == pytest.approx(fraction * length, rel=0.1)
        # The first block goes where the document went as a whole.
        assert drawn[0][1] == next(held_out([(True, lines)], fraction, float("inf")))[1]
        # Its pieces end anywhere; the hash is of the first.
        pieces = [(True, lines[:700]), (False, lines[700:703]), (False, lines[703:])]
        drawn = [(is_dev, line) for _, is_dev, block in held_out(pieces, fraction, 100) for line in block]
        first = next(held_out([(True, lines[:700])], fraction, 100))
        assert [line for _, line in drawn] == lines and drawn[0][0] == first[1]
