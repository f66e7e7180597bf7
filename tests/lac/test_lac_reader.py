"""lac/reader.py: tagged lines, tag sets, the table of replacements, batches, and what is wrong with files."""

from elmo_chinese.text.reading import InputError

import pytest
from conftest import GOLDEN, ROOT

from lac.lines import Line, check_gold, parse_line, read_gold
from lac.reader import Sentence, build_vocabulary, read_table, read_tags
from lac.scores import Span

KINDS = ["n", "v"]


@pytest.fixture
def write(tmp_path):
    def write(text, name="lines.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8"))
        return path

    return write


def test_lines_become_words_and_spans(write):
    path = write("大 桥 塌\tn-B n-I v\n\n桥/n\r\n大桥 塌 了/\tx y z\t大/a 桥塌/v 了//u\n")
    lines, problems = read_gold(path)
    assert lines == [
        Line([("大桥", "n"), ("塌", "v")], f"{path}: line 1"),
        Line([("桥", "n")], f"{path}: line 3"),
        Line([("大", "a"), ("桥塌", "v"), ("了/", "u")], f"{path}: line 4"),
    ]
    assert lines[0].text == "大桥塌" and lines[0].gold == [Span(0, 2, "n"), Span(2, 3, "v")]
    assert Line([("大", "O"), ("桥", "n")], "").gold == [Span(1, 2, "n")]
    assert problems == []


BAD_LINES = {
    "no type": ("大/n 桥", "line 2: expected word/type, found '桥'"),
    "four fields": ("a\tn\ta/n\tb", "line 2: expected .*, found 4 fields"),
    "more tags": ("大 桥\tn n v", "line 2: 2 words, but 3 tags: '大 桥"),
    "no words": ("\tn", "line 2: 0 words, but 1 tags"),
    "nothing": (" \t ", None),
    "unknown type": ("大 桥\tn nz", "line 2: unknown type 'nz' of word '桥'; the model has n, v"),
    "no type for it": ("大 桥\tn O", "line 2: '桥' is in no word; the model gives each character one"),
    "gold of another text": ("大 桥\tn n\t大/n 路/n", "line 2: the third field is not the text of the first"),
    "gold without a tag": ("大 桥\tn n\t大/n 桥", "line 2: third field: expected word/tag, found '桥'"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_or_skipped_and_counted(write, name):
    line, message = BAD_LINES[name]
    path = write(f"桥\tn\n{line}\n路/n\n")
    if message is None:  # blank
        assert len(read_gold(path)[0]) == 2
        return
    with pytest.raises(InputError, match="lines.txt: " + message):
        read_gold(path, kinds=KINDS)
    lines, problems = read_gold(path, "skip", kinds=KINDS)
    assert [line.text for line in lines] == ["桥", "路"]
    assert len(problems) == 1 and "line 2" in problems[0]


def test_a_file_without_a_usable_line_is_an_error(write):
    with pytest.raises(InputError, match="no usable line in it; the first: .*line 1: unknown type 'q'"):
        read_gold(write("a\tq\n"), "skip", kinds=KINDS)
    with pytest.raises(InputError, match="no usable line"):
        read_gold(write("\n\n"))
    with pytest.raises(InputError, match="is empty"):
        read_gold(write(""))
    with pytest.raises(InputError, match="no file matches"):
        read_gold("nowhere.txt")


def test_gold_words_of_unknown_types_are_counted_and_other_tag_sets_refused(write):
    lines, _ = read_gold(write("a/n b/q c/v d/O\n"))
    assert check_gold(lines, KINDS, "here") == 1
    with pytest.raises(InputError, match="here: tagged with another tag set than the model's: it has n, q, v"):
        check_gold(lines, ["x"], "here")


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


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("line", ["上海/ns 的/u\t房价/n 平稳/v", "上海/ns\t房价/n\t平稳/v"])
def test_several_sentences_on_a_line_are_not_taken_for_tags(line, typed):
    with pytest.raises(ValueError, match="expected tags after the tab, found '房价/n'; put each sentence"):
        parse_line(line, typed)
