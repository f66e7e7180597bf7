"""lac/lines.py: tags to words, tagged lines, and what is wrong with them."""

from elmo_chinese.text.reading import InputError

import pytest

from lac.lines import Line, Span, check_gold, parse_line, read_gold, spans, split_tag, to_bio, words_of

LABELS = ["n", "v"]


@pytest.fixture
def write(tmp_path):
    def write(text, name="lines.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8"))
        return path

    return write


def test_lines_become_words_and_spans(write):
    path = write("大 桥 塌\tn-B n-I v\n\n桥/n\r\n大桥/a 塌/v 了//u\n")
    lines, problems = read_gold(path)
    assert lines == [
        Line([("大桥", "n"), ("塌", "v")], f"{path}: line 1"),
        Line([("桥", "n")], f"{path}: line 3"),
        Line([("大桥", "a"), ("塌", "v"), ("了/", "u")], f"{path}: line 4"),
    ]
    assert lines[0].text == "大桥塌" and lines[0].gold == [Span(0, 2, "n"), Span(2, 3, "v")]
    assert Line([("大", "O"), ("桥", "n")], "").gold == [Span(1, 2, "n")]
    assert problems == []


BAD_LINES = {
    "no type": ("大/n 桥", "line 2: expected word/type, found '桥'"),
    "three fields": ("a\tn\ta/n", "line 2: expected .*, found 3 fields"),
    "more tags": ("大 桥\tn n v", "line 2: 2 words, but 3 tags: '大 桥"),
    "no words": ("\tn", "line 2: 0 words, but 1 tags"),
    "nothing": (" \t ", None),
    "unknown type": ("大 桥\tn nz", "line 2: unknown type 'nz' of word '桥'; the model has n, v"),
    "no type for it": ("大 桥\tn O", "line 2: '桥' is in no word; the model gives each character one"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_or_skipped_and_counted(write, name):
    line, message = BAD_LINES[name]
    path = write(f"桥\tn\n{line}\n路/n\n")
    if message is None:  # blank
        assert len(read_gold(path)[0]) == 2
        return
    with pytest.raises(InputError, match="lines.txt: " + message):
        read_gold(path, labels=LABELS)
    lines, problems = read_gold(path, "skip", labels=LABELS)
    assert [line.text for line in lines] == ["桥", "路"]
    assert len(problems) == 1 and "line 2" in problems[0]


def test_a_file_without_a_usable_line_is_an_error(write):
    with pytest.raises(InputError, match="no usable line in it; the first: .*line 1: unknown type 'q'"):
        read_gold(write("a\tq\n"), "skip", labels=LABELS)
    with pytest.raises(InputError, match="no usable line"):
        read_gold(write("\n\n"))
    with pytest.raises(InputError, match="is empty"):
        read_gold(write(""))
    with pytest.raises(InputError, match="no file matches"):
        read_gold("nowhere.txt")


def test_gold_words_of_unknown_types_are_counted_and_other_tag_sets_refused(write):
    lines, _ = read_gold(write("a/n b/q c/v d/O\n"))
    assert check_gold(lines, LABELS, "here") == 1
    with pytest.raises(InputError, match="here: tagged with another tag set than the model's: it has n, q, v"):
        check_gold(lines, ["x"], "here")


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("line", ["上海/ns 的/u\t房价/n 平稳/v", "上海/ns\t房价/n\t平稳/v"])
def test_several_sentences_on_a_line_are_not_taken_for_tags(line, typed):
    with pytest.raises(ValueError, match="expected tags after the tab, found '房价/n'; put each sentence"):
        parse_line(line, typed)


def found(text):
    """Return the spans of `word/tag word/tag …` as text."""
    words, tags = zip(*[token.rsplit("/", 1) for token in text.split()])
    joined = "".join(words)
    return [f"{joined[span.start : span.end]}/{span.label}" for span in words_of(spans(words, to_bio(tags)))]


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
    assert spans(["中国", "人民", "万岁"], ["n-B", "n-I", "v-B"]) == [Span(0, 4, "n"), Span(4, 6, "v")]


@pytest.mark.parametrize(
    "name, expected", [("O-B", ("O", "B")), ("n-", ("n-", "S")), ("-S", ("", "S")), ("B", ("B", "S"))]
)
def test_only_the_four_endings_are_endings(name, expected):
    assert split_tag(name) == expected


@pytest.mark.parametrize(
    "text, words",
    [
        ("我/r 住/v\n福建/ns\n", [["我", "住"], ["福建"]]),
        ("我/r  住/v  [厦门/ns 大学/n]nt\n", [["我", "住", "厦门大学"]]),
        ("我 住\t r-B v-B\n", [["我", "住"]]),
        ("我 住 km/h\n5 km/h 快\n", [["我", "住", "km/h"], ["5", "km/h", "快"]]),
    ],
)
def test_a_model_that_only_cuts_takes_the_words_of_lines_with_types(write, text, words):
    lines, problems = read_gold(write(text), typed=False)
    assert [[word for word, _ in line.words] for line in lines] == words and not problems
    assert {label for line in lines for _, label in line.words} == {""}


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize(
    "text, message",
    [
        ("我_PN 住_VV\n", "types behind an underscore .'我_PN'.; put them behind a slash: 我/PN"),
        ("中 B-ORG\n国 I-ORG\n在 O\n", "lines of one token and its tag .'中 B-ORG'.; put a sentence on a line"),
        ("中 ORG-B\n\n国 ORG-I\n", "lines of one token and its tag"),
    ],
)
def test_forms_that_are_not_read_are_named(write, typed, text, message):
    with pytest.raises(InputError, match="lines.txt: " + message):
        read_gold(write(text), "skip", typed=typed)


def test_a_word_without_a_type_among_those_with_one_is_named(write):
    with pytest.raises(InputError, match="line 2: expected word/type, found '住'"):
        read_gold(write("我/r 在/p\n我/r 住\n"), typed=False)
