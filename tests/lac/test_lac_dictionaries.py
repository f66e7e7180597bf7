"""lac/dictionaries.py: lines cut to be trained on, tags spelled by what the tag set has, ids of tokens, files."""

from elmo_chinese.text import segmenter as segmenters
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.segmenter import CharacterSegmenter, PathSegmenter
from elmo_chinese.text.vocabulary import vocabulary_from

import pytest
from conftest import GOLDEN, ROOT

from lac import dictionaries
from lac.dictionaries import (
    PRIOR,
    Dictionaries,
    Sentence,
    build_vocabulary,
    from_lines,
    last_known_piece,
    mix,
    plain_first,
    read_release,
    read_table,
    read_tags,
    restore,
)
from lac.lines import Line, Span, parse_line

LABELS = ["n", "v", "t"]
TAGS = [label + ending for label in LABELS for ending in ("", "-B", "-I")]
TABLE = {ord("Ａ"): "A", ord("１"): "1"}


@pytest.fixture
def general(monkeypatch):
    """A small general dictionary in place of jieba's, all of it worth one gold word."""
    monkeypatch.setattr(dictionaries, "PRIOR", 1)
    counts = {"研究部": 50, "署": 20, "研": 1, "究": 1, "部": 9, "研究": 60, "部署": 40, "年": 9}
    monkeypatch.setattr(segmenters, "jieba_counts", lambda least: counts)
    return counts


def lines(*texts):
    return [Line(parse_line(text), f"file: line {number}") for number, text in enumerate(texts, start=1)]


def test_all_general_words_count_as_much_as_so_many_gold_ones():
    counts, weight = mix({"a": 3, "b": 1}, {"b": 40_000, "c": 60_000})
    assert weight == 200 == 100_000 / PRIOR and counts == {"a": 600, "b": 40_200, "c": 60_000}
    assert mix({"a": 3}, {"b": 2}) == ({"a": 3, "b": 2}, 1)


def test_a_line_is_cut_as_if_its_own_words_had_not_been_counted(general):
    text = from_lines(lines("研究部署/n", "研究部署/n 年/t", "部/n 署年/t"), TAGS, TABLE)
    assert text.segmenter.cut("研究部署署年") == ["研究部署", "署年"]
    found = text.training_sentences(lines("研究部署/n", "研究部署/n 年/t", "部/n 署年/t"))
    assert found[0].words == ["研究部署"]  # the other line has it
    assert (found[2].words, found[2].tags) == (["部", "署", "年"], ["n", "t-B", "t-I"])
    assert found[2].gold == [Span(0, 1, "n"), Span(1, 3, "t")]
    assert text.for_other_lines().training_sentences(lines("部/n 署年/t"))[0].words == ["部", "署年"]
    assert text.held_out_sentences(lines("部/n 署年/t"))[0][:2] == (["部", "署年"], [])


def test_tokens_are_cut_where_words_end(general):
    text = from_lines(lines("年/t"), TAGS, TABLE)
    assert text.segmenter.cut("研究部署") == ["研究", "部署"]
    (sentence,) = text.training_sentences(lines("研/v 究部/n 署年/t"))
    assert sentence.words == ["研", "究", "部", "署", "年"]
    assert sentence.tags == ["v", "n-B", "n-I", "t-B", "t-I"]


@pytest.mark.parametrize(
    "tags, line, expected",
    [
        (["n", "n-B", "n-I"], "甲/n 乙丙丁/n", ["n", "n-B", "n-I", "n-I"]),
        (["n-B", "n-I"], "甲/n 乙丙丁/n", ["n-B", "n-B", "n-I", "n-I"]),
        (["n-B", "n-I", "n-E", "n-S"], "甲/n 乙丙丁/n", ["n-S", "n-B", "n-I", "n-E"]),
        (["-B", "-I", "-E", "-S"], "甲/ 乙丙/", ["-S", "-B", "-E"]),
        (["n", "n-B", "n-I", "O"], "甲 乙丙 丁\tn O n", ["n", "O", "O", "n"]),
    ],
)
def test_tags_are_spelled_as_the_tag_set_has_them(tags, line, expected):
    text = Dictionaries(["<UNK>"], tags, {}, CharacterSegmenter(), weight=0)
    gold = [("甲", ""), ("乙丙", "")] if tags[0] == "-B" else parse_line(line)
    assert text.training_sentences([Line(gold, "here")])[0].tags == expected


def test_a_tag_that_is_lacking_is_named():
    text = Dictionaries(["<UNK>"], ["w"], {}, CharacterSegmenter(), weight=0)
    with pytest.raises(InputError, match="here: '……' is 2 tokens, but the tag set has no w-B; add it"):
        text.training_sentences([Line([("……", "w")], "here")])


def test_the_words_of_a_new_model_and_their_ids(general):
    text = from_lines(lines("１年/t Ａ/n", "２年/t"), TAGS, TABLE)
    assert set(text.words) == {"<S>", "</S>", "<UNK>", "0年", "A"}  # all years are one word
    assert text.look_up("７年") == text.look_up("1年") == text.words.index("0年")
    assert text.word_ids(["Ａ", "A", "B"]).tolist() == [text.words.index("A")] * 2 + [text.unknown]


def test_a_form_that_only_the_vocabulary_has_is_found_too():
    for words, expected in ((["A", "Ａ"], [1, 1]), (["Ａ"], [1, 0]), (["A"], [1, 1])):
        text = Dictionaries(["<UNK>", *words], TAGS, TABLE, CharacterSegmenter())
        assert text.word_ids(["Ａ", "A"]).tolist() == expected


def test_a_bilm_s_words_are_looked_up_plain_first_and_digits_last():
    look_up = plain_first({"A": 1, "Ａ": 2, "19": 3, "00年": 4}, {**TABLE, **segmenters.DIGITS})
    assert [look_up(token) for token in ("Ａ", "A", "１９", "19", "１８年", "18年", "B")] == [2, 1, 3, 3, 4, 4, None]


def test_a_token_that_the_bilm_does_not_know_stands_as_its_last_known_piece():
    vocabulary = vocabulary_from(["<S>", "</S>", "<UNK>", "北京", "大学", "市", "Ａ", "1"])
    look_up = last_known_piece(vocabulary, TABLE)
    tokens = ["北京", "北京大学", "北京市", "市长", "Ａ座", "长", "1", "９1"]
    assert vocabulary.decode(map(look_up, tokens)) == ["北京", "大学", "市", "市", "Ａ", "<UNK>", "1", "1"]


def test_what_is_written_is_read_again(general, tmp_path):
    text = from_lines(lines("研究部署/n", "１年/t"), TAGS, TABLE)
    again = restore(text.info(), text.words, text.tags, text.table, text.segmenter.dictionary, tmp_path)
    assert again.segmenter.cut("研究部署１年") == text.segmenter.cut("研究部署１年") == ["研究部署", "１年"]
    assert (again.weight, again.words, again.segmenter.counts) == (text.weight, text.words, text.segmenter.counts)
    bad = [
        ({"segmenter": "x"}, "is to be cut by 'x'; known are characters, jieba, count, length, words"),
        ({"weight": -1}, "weight must be a whole number"),
    ]
    for change, message in bad:
        with pytest.raises(InputError, match=message):
            restore({**text.info(), **change}, text.words, text.tags, text.table, text.segmenter.dictionary, tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: line 1: expected `word count`"):
        restore(text.info(), text.words, text.tags, text.table, "研究\n", tmp_path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("word.dic", "0\ta\n2\tOOV\n", "word.dic: the ids are not 0 to 1"),
        ("word.dic", "0\ta\nOOV\n", "word.dic: line 2: expected `id<TAB>text`, found 'OOV'"),
        ("word.dic", "0\ta\n", "word.dic: no token OOV in it"),
        ("small_seg.dic", "a 3\nb\n", "small_seg.dic: line 2: expected `word count`, found 'b'"),
        ("tag.dic", "n-B\n", "tag.dic: line 1: expected"),
    ],
)
def test_a_line_of_a_release_that_is_none_is_named(tmp_path, name, content, message):
    files = {"word.dic": "0\ta\n1\tOOV\n", "small_seg.dic": "a 3\n", "tag.dic": "0\tn-B\n1\tn-I\n"}
    for file, text in {**files, "q2b.dic": "Ａ\tA\n"}.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    assert isinstance(read_release(tmp_path).segmenter, PathSegmenter)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_release(tmp_path)


@pytest.fixture
def write(tmp_path):
    def write(text, name="lines.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8"))
        return path

    return write


def test_tags_are_the_lines_of_tag_dic(write):
    assert read_tags(GOLDEN / "lac_small" / "tag.dic") == ["n", "n-B", "n-I", "v", "v-B", "v-I", "w"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no tags in it"),
        ("n\nv\nn\n", "'n' stands on line 1 and again on line 3"),
        ("n\n\nv\n", "line 2: expected one tag and nothing else, found ''"),
        ("0\tn\n", "line 1: expected one tag and nothing else"),
    ],
)
def test_a_bad_tag_file_is_an_error(write, text, message):
    with pytest.raises(InputError, match=message):
        read_tags(write(text, "tag.dic"))


def test_the_table_of_the_project_makes_full_width_half_width():
    table = read_table(ROOT / "lac" / "conf" / "q2b.dic")
    assert "１９９８年，ＡＢｃ　（％）".translate(table) == "1998年,ABc (%)"
    assert "中。、《".translate(table) == "中。、《"


@pytest.mark.parametrize(
    "text, message",
    [("ａa\n", "line 1: expected a character, a tab"), ("ａ\ta\nａ\tb\n", "line 2: 'ａ' .U.FF41. is there already"),
     ("ab\tc\n", "line 1: expected a character")],
)  # fmt: skip
def test_a_bad_table_is_an_error(write, text, message):
    with pytest.raises(InputError, match=message):
        read_table(write(text, "q2b.dic"))


def test_the_words_of_a_new_model_are_the_tokens_in_half_width_form():
    sentences = [Sentence(["Ａ", "A", "b"], [], []), Sentence(["<UNK>", "b", "b"], [], [])]
    assert build_vocabulary(sentences, {ord("Ａ"): "A"}) == ["<S>", "</S>", "<UNK>", "b", "A"]
