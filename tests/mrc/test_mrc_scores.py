"""mrc/evaluate.py: each score by hand, the longest common pieces against enumeration, and against public packages."""

import itertools
import math
import random

import pytest

from mrc.evaluate import Scores, bleu_4, cmrc_f1, common_run, common_subsequence, exact_match, pieces, rouge_l, score


@pytest.mark.parametrize(
    "answer, references, expected",
    [
        ("红楼梦", ["红楼梦"], 1),
        ("红楼梦", ["西游记"], 0),
        ("", ["西游记"], 0),
        (" 红 楼\n梦\u3000", ["红楼梦"], 1),  # white space does not count
        ("红楼梦。", ["红楼梦"], 2.44 * (3 / 4) * 1 / (1 + 1.44 * (3 / 4))),  # marks do
        # 北京北方: four of five characters, four of six
        ("北京在北方", ["北京位于北方"], 2.44 * (4 / 5) * (4 / 6) / (4 / 6 + 1.44 * (4 / 5))),
        # recall from the first reference, precision from the second
        ("甲乙丙", ["甲乙", "甲乙丙丁戊己"], 1),
        ("甲乙丙", ["甲乙", "丁"], 2.44 * (2 / 3) * 1 / (1 + 1.44 * (2 / 3))),
    ],
)
def test_rouge_l_by_hand(answer, references, expected):
    assert rouge_l(answer, references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ([("甲乙丙丁", ["甲乙丙丁"])], 1),
        ([("甲乙丙", ["甲乙丙"])], 0),  # no four characters in a row
        ([("", ["甲乙丙丁"])], 0),
        # 4 of 5 characters, 3 of 4 pairs, 2 of 3, 1 of 2; too short by one
        ([("甲乙丙丁戊", ["甲乙丙丁己庚"])], (1 / 5) ** 0.25 * math.exp(1 - 6 / 5)),
        ([("甲 乙丙\n丁戊", ["甲乙丙丁 己庚"])], (1 / 5) ** 0.25 * math.exp(1 - 6 / 5)),
        # what stands too often counts as often as in the reference; too long costs nothing more
        ([("甲甲甲甲甲甲", ["甲甲甲甲"])], (4 * 3 * 2 * 1 / (6 * 5 * 4 * 3)) ** 0.25),
        # of lengths as near as each other the shorter
        ([("甲乙丙丁戊", ["甲乙丙丁", "甲乙丙丁己庚"])], (1 / 5) ** 0.25),
        # all answers are counted together: all characters, 4 of 5 pairs, 2 of 3, 1 of 1; 7 characters for 8
        ([("甲乙丙丁", ["甲乙丙丁"]), ("春夏秋", ["春夏冬秋"])], (4 / 5 * 2 / 3) ** 0.25 * math.exp(1 - 8 / 7)),
    ],
)
def test_bleu_4_by_hand(pairs, expected):
    assert bleu_4(pairs) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "answer, references, expected",
    [
        ("《红楼梦》", ["红楼梦。"], 1),
        ("红楼梦", ["西游记"], 0),
        ("", ["红楼梦"], 0),
        ("，。", ["。"], 0),  # nothing is left of them
        ("1990年，北京", ["北京"], 2 * (2 / 4) * 1 / (2 / 4 + 1)),  # 1990 年 北 京
        ("甲乙丙丁", ["甲丙丁"], 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)),  # 丙丁: without gaps, unlike Rouge-L
        ("Hello World", ["hello world!"], 1 / 2),  # `world!` is another run than `world`
        ("T-恤", ["t恤"], 1),
        ("甲乙", ["丙", "甲乙丁", "甲"], 4 / 5),  # the best reference: 4/5, for 甲 2/3
    ],
)
def test_f1_by_hand(answer, references, expected):
    assert cmrc_f1(answer, references) == pytest.approx(expected, abs=1e-12)


def test_the_pieces_of_cmrc_2018():
    text = "Windows 95（1995年）：比-尔·Gates's “第一”版，约3.5 GB……"
    assert pieces(text) == ["windows", "951995", "年", "比", "尔", "gates's", "第", "一", "版", "约", "3.5", "gb……"]
    assert pieces("一龥龦龦") == ["一", "龥", "龦龦"]  # where Unicode 1.1 had its last Chinese character


@pytest.mark.parametrize(
    "answer, references, expected",
    [
        ("红楼梦", ["西游记", "红楼梦"], 1),
        (" 《红楼梦》。\n", ["“红楼梦”"], 1),
        ("红 楼梦", ["红楼梦"], 0),
        ("红楼梦.", ["红楼梦"], 0),  # the ASCII full stop is not among what is dropped
        ("ABC公司", ["abc公司"], 1),
        ("", ["。"], 0),  # no answer is no answer, whatever is dropped of a reference
        ("，", ["。"], 1),
    ],
)
def test_em_by_hand(answer, references, expected):
    assert exact_match(answer, references) == expected


def all_pieces(text, gaps):
    """Return all subsequences of a text, or only those without gaps."""
    spans = itertools.combinations(range(len(text) + 1), 2)
    runs = {text[start:end] for start, end in spans} | {text[:0]}
    return {tuple(one) for n in range(len(text) + 1) for one in itertools.combinations(text, n)} if gaps else runs


@pytest.mark.parametrize("gaps, measure", [(True, common_subsequence), (False, common_run)])
def test_common_pieces_equal_enumeration(gaps, measure):
    draw = random.Random(1)
    for _ in range(150):
        first, second = ("".join(draw.choices("甲乙𠀀d", k=draw.randrange(9))) for _ in range(2))
        assert measure(first, second) == max(map(len, all_pieces(first, gaps) & all_pieces(second, gaps)))


def test_long_texts_are_compared_too():
    assert common_subsequence("甲乙" * 5000, "乙" * 9000) == 5000
    assert common_run("甲乙" * 300 + "丙", "乙" * 20 + "甲乙" * 200) == 401


def random_pairs(seed, count=200):
    """Return answers, each with one to three references that share some of it."""
    draw = random.Random(seed)
    letters = "的一是了我不人在他有"[: 4 + seed]
    pairs = []
    for _ in range(count):
        base = "".join(draw.choices(letters, k=draw.randint(6, 30)))
        texts = [base] + ["".join(draw.choices(letters, k=draw.randint(6, 30))) for _ in range(draw.randrange(3))]
        start = draw.randrange(len(base) - 4)
        pairs.append((base[start:] + "".join(draw.choices(letters, k=draw.randrange(4))), texts))
    return pairs


# Of `random_pairs`: the mean of pycocoevalcap 1.2's Rouge-L, and sacrebleu 2.6.0's BLEU without smoothing and cutting.
PACKAGES = {
    0: (0.7521205149695395, 0.7608031438744897),
    3: (0.7442527722705405, 0.7636298260078774),
    6: (0.7590545442584735, 0.7614694168139217),
}


@pytest.mark.parametrize("seed", PACKAGES)
def test_scores_of_public_packages_kept_here(seed):
    pairs = random_pairs(seed)
    found = score(pairs)
    assert (found.rouge_l, found.bleu_4) == pytest.approx(PACKAGES[seed], rel=1e-12)


def test_rouge_l_equals_pycocoevalcap():
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    for answer, references in [pair for seed in PACKAGES for pair in random_pairs(seed)]:
        expected = rouge.calc_score([" ".join(answer)], [" ".join(text) for text in references])
        assert rouge_l(answer, references) == pytest.approx(expected, rel=1e-12)


def test_bleu_4_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    for pairs in [random_pairs(seed, count) for seed in PACKAGES for count in (1, 2, 10, 200)]:
        references = itertools.zip_longest(*([" ".join(text) for text in texts] for _, texts in pairs))
        answers = [" ".join(answer) for answer, _ in pairs]
        expected = sacrebleu.corpus_bleu(answers, list(references), tokenize="none", smooth_method="none")
        assert 100 * bleu_4(pairs) == pytest.approx(expected.score, rel=1e-9)


def test_the_scores_of_several_questions():
    pairs = [("红楼梦", ["红楼梦", ""]), ("", ["西游记"]), ("水浒传", ["水浒", " "]), ("三国", [" ", "\n"]), ("无", [])]
    rouge = 2.44 * (2 / 3) / (1 + 1.44 * (2 / 3))
    expected = ((1 + rouge) / 3, 0.0, (1 + 4 / 5) / 3, 1 / 3, 3)  # the last two have no reference
    assert score(iter(pairs)) == Scores(*(pytest.approx(value) for value in expected))
    assert score([("甲乙丙丁", ["甲乙丙丁"])]) == Scores(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="no question has a reference answer"):
        score(pairs[3:])
