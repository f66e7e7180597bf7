"""elmo_chinese/text/corpus/forms.py and encoding.py: the same documents in any form, name, packing and encoding."""

import bz2
import csv
import gzip
import html
import io
import json
import lzma

from elmo_chinese.text.corpus import forms
from elmo_chinese.text.corpus.documents import check_file, documents
from elmo_chinese.text.corpus.forms import Source

import numpy as np
import pytest

SENTENCES = [
    *("数学是一门学科。", "他带队检查了校园周边的小吃店", "银河系是一个棒旋星系，直径约十万光年。"),
    *('a < b && {"c": ["d"]}', "他说：“好。”"),
]
PACK = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(form, docs, rng):
    """Return documents as text of a form, and names that such files have in public corpora."""
    end = rng.choice(["\n", "\r\n"])
    records = [{"id": str(n), "title": "题", "text": end.join(lines)} for n, lines in enumerate(docs)]
    if form == "plain":
        return (end + end).join(end.join(lines) for lines in docs) + end, ["a.txt", "a", "a.md"]
    if form == "wiki":
        heads = (f'<doc id="{n}" url="x?curid={n}" title="题 > 目">' for n in range(len(docs)))
        bodies = (html.escape((end + end).join(lines), quote=False) for lines in docs)
        return "".join(f"{head}{end}{body}{end}</doc>{end}" for head, body in zip(heads, bodies)), ["wiki_00"]
    if form == "numbered":
        docs[:] = [[line] for lines in [*docs, docs[0]] for line in lines]  # a sentence is a document
        return "".join(f"{n}\t{line}{end}" for n, (line,) in enumerate(docs, start=1)), [
            "zho_news_2020_10K-sentences.txt"
        ]
    if form == "table":
        file = io.StringIO()
        rows = csv.DictWriter(file, ["id", "text", "title"], lineterminator=end, delimiter=str(rng.choice([",", "\t"])))
        rows.writeheader()
        rows.writerows(records)
        return file.getvalue(), ["a.csv", "a.tsv", "reviews"]
    ascii_only = bool(rng.integers(2))
    if form == "json_lines":
        text = "".join(json.dumps(record, ensure_ascii=ascii_only) + end for record in records)
        return text, ["wiki_00", "a.json", "a.jsonl", "web.txt"]
    indent = rng.choice([None, 1])
    if indent and rng.integers(2):  # one object after another
        return end.join(json.dumps(record, ensure_ascii=ascii_only, indent=1) for record in records), ["a.json", "all"]
    return json.dumps(records, ensure_ascii=ascii_only, indent=indent and int(indent)), ["a.json", "all"]


@pytest.mark.parametrize("form", ["plain", "wiki", "json_lines", "json_objects", "numbered", "table"])
@pytest.mark.parametrize("seed", range(12))
def test_documents_are_the_same_in_any_form_and_name_packed_or_not(tmp_path, monkeypatch, form, seed):
    rng = np.random.default_rng(seed)
    docs = [[str(s) for s in rng.choice(SENTENCES, rng.integers(1, 4))] for _ in range(rng.integers(1, 7))]
    docs[0][0] = SENTENCES[1]  # some Chinese in each
    text, names = write(form, docs, rng)
    encoding = str(rng.choice(["utf-8", "utf-8-sig", "gb18030", "utf-16"]))
    packing = str(rng.choice(list(PACK)))
    path = tmp_path / (str(rng.choice(names)) + str(rng.choice(["", packing])))
    path.write_bytes(PACK[packing](text.encode(encoding)))
    monkeypatch.setattr(forms, "BLOCK", int(rng.choice([2**20, 64, 7])))
    known = check_file(str(path), "text")
    assert known["error"] is None and known["documents"] == len(docs)
    assert known["form"] == form
    found = list(documents(Source(str(path), known["encoding"]), form, "text"))
    assert found == [(True, lines) for lines in docs]


def test_big5_is_read_as_what_it_is(tmp_path):
    text = "數學是研究數量、結構、變化以及空間等概念的一門學科。\n他帶隊檢查了校園周邊的小吃店，發現許多問題。\n"
    (tmp_path / "a.txt").write_bytes(text.encode("big5"))
    known = check_file(str(tmp_path / "a.txt"), "text")
    assert known["error"] is None
    ((_, lines),) = documents(Source(str(tmp_path / "a.txt"), known["encoding"]), "plain", "text")
    assert lines == text.splitlines()


@pytest.mark.parametrize(
    "text, message",
    [
        ("字。\n", "neither JSON objects nor an array of them"),
        ('[{"text": "字"}, {"text": ', "record 2 is not JSON, or cut"),
        ('[{"text": "字"}, {"text": "词"}', "[ and ] do not match after 2 records"),
        ('[{"text": "字"}, {"text" "词"},' + ' {"text": "字"},' * 99, "record 2 is not JSON, or cut"),
        ('{"text": "字"\n', "record 1 is not JSON, or cut"),
        ('<doc id="1">\n字。\n<doc id="2">\n', "line 3: <doc …> before the </doc> of line 1's"),
        ("<html>\n", "markup, not text"),
        ("<doc>\n<url>x</url>\n", "markup, not text"),
        ('[{"text": "字"}, {"text": null}]', "record 2: 'text' is null, not a text"),
        ('<doc id="1">\n字。\n', "the <doc …> of line 1 is not closed"),
        ('<doc id="1">\n字。\n</doc>\n外。\n', "line 4: text outside of <doc …>"),
        ("# text = 我来\n1\t我\t我\tPRON\tPN\t_\t2\tnsubj\t_\t_\n", "CoNLL-U, not text; take the sentences out"),
    ],
)
def test_what_is_cut_or_of_no_form_is_named(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert message in check_file(str(tmp_path / "a.json"), "text")["error"]


def test_one_bad_record_can_be_left_out(tmp_path):
    lines = ['{"text": "一。"}', '{"text": null}', "{", '{"text": "二。"}']
    (tmp_path / "a.json").write_text("\n".join(lines), encoding="utf-8")
    assert "--on_bad_record skip leaves" in check_file(str(tmp_path / "a.json"), "text")["error"]
    known = check_file(str(tmp_path / "a.json"), "text", skip_records=True)
    assert known["documents"] == 2 and known["bad_records"][1] == 2 and "line 2" in known["bad_records"][0]


def test_a_sentence_that_looks_like_json_is_text(tmp_path):
    (tmp_path / "a.txt").write_text("{集合} 的 元素。\n[1] 参考 文献。\n", encoding="utf-8")
    assert check_file(str(tmp_path / "a.txt"), "text")["form"] == "plain"


def test_a_record_over_many_blocks_is_read_once_it_is_whole_and_bad_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "BLOCK", 10)
    records = [{"text": "长" * 5000}, {"text": None}, {"title": "一"}, {"text": "末"}]
    (tmp_path / "all").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    known = check_file(str(tmp_path / "all"), "text", skip_records=True)
    assert (known["documents"], known["bad_records"][1], known["characters"]) == (2, 2, 5001)
    assert "record 2: 'text' is null" in known["bad_records"][0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("label,review\n1,好。\n0,坏。\n", "a table without a column 'text' (found 'label', 'review'); name the one"),
        ('id,text\n1,"好。\n2,坏。\n', "line 3: not a row of a table: unexpected end of data; is a quote missing?"),
        ("id,text\n1\n", "line 2 has no text 'text'"),
    ],
)
def test_a_table_is_told_and_its_faults_are_named(tmp_path, text, message):
    for name in ("a.csv", "reviews"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert message in check_file(str(tmp_path / name), "text")["error"]


def test_text_with_commas_is_no_table(tmp_path):
    for text in ("你好,世界\n再见,世界,再见\n", "Hello, world\n", "a,b\n一行字。\n"):
        (tmp_path / "a").write_text(text, encoding="utf-8")
        assert check_file(str(tmp_path / "a"), "text")["form"] == "plain"


def test_lines_end_in_any_way_in_json_too_and_segmented_text_loses_its_marks(tmp_path):
    lines = ["一。", "二。", "三。", "四。", "五。"]
    text = "\ufeff一。\r二。\x85三。\u2028<S> 四。 </S>\u2029\u200b五。\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), encoding="utf-8")
    for name in ("a.txt", "a.jsonl"):
        source = forms.open_source(str(tmp_path / name))
        ((_, found),) = documents(source, forms.tell(source, "text"), "text")
        assert [line.strip() for line in found] == lines


def test_what_wikiextractor_escaped_is_the_same_in_its_json(tmp_path):
    record = {"id": "13", "url": "https://zh.wikipedia.org/wiki?curid=13", "title": "题", "text": "a &lt; b"}
    own = {"id": "13", "text": "a &lt; b"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, (record, own))), encoding="utf-8")
    found = list(documents(forms.open_source(str(tmp_path / "a.jsonl")), "json_lines", "text"))
    assert [lines for _, lines in found] == [["a < b"], ["a &lt; b"]]
