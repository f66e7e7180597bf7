"""elmo_chinese/text/corpus/wikipedia.py: pages of a dump, and what is seen of each construct of their markup."""

import bz2
import sys
from xml.sax.saxutils import escape

from elmo_chinese.text.corpus import forms
from elmo_chinese.text.corpus.documents import check_file, documents
from elmo_chinese.text.corpus.wikipedia import lines_of_article, to_script
from elmo_chinese.text.reading import InputError

import pytest

import preprocess

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="10">Template</namespace></namespaces>
  </siteinfo>
"""


def page(title, text, ns=0, extra="", model="wikitext"):
    """Return a page as the exporter of MediaWiki writes it."""
    text = (
        f'<text bytes="9" xml:space="preserve">{escape(text, {chr(34): "&quot;"})}</text>'
        if text
        else '<text bytes="0" />'
    )
    return f"""  <page>
    <title>{title}</title>
    <ns>{ns}</ns>
    <id>1</id>{extra}
    <revision>
      <id>2</id>
      <comment>/* 历史 */ &lt;ns&gt;0</comment>
      <model>{model}</model>
      <format>text/x-wiki</format>
      {text}
      <sha1>x</sha1>
    </revision>
  </page>
"""


DUMP = (
    HEAD
    + page("数学", "'''数学'''是研究[[数量]]的学科。它很\"古老\"，1 < 2 & 3。\n\n第二段。")
    + page("算术", "#重定向 [[数学]]", extra='\n    <redirect title="数学" />')
    + page("Template:公式", "模板的文字。", ns=10)
    + page("Talk:数学", "讨论的文字。", ns=1)
    + page("空", "")
    + page("代码", "var x;", model="javascript")
    + page("几何", "几何是数学的分支。\r\n它研究形状。")
    + "</mediawiki>\n"
)
ARTICLES = [
    ["'''数学'''是研究[[数量]]的学科。它很\"古老\"，1 < 2 & 3。\n\n第二段。"],
    ["几何是数学的分支。\n它研究形状。"],
]


def multistream(text, size=700):
    """Return a text in many streams of bzip2, as the dumps for readers with an index come."""
    data = text.encode()
    return b"".join(bz2.compress(data[first : first + size]) for first in range(0, len(data), size))


@pytest.mark.parametrize("block", [7, 300, 2**20])
@pytest.mark.parametrize("pack", [str.encode, lambda text: bz2.compress(text.encode()), multistream])
def test_only_articles_are_read_however_the_dump_is_packed(tmp_path, monkeypatch, pack, block):
    monkeypatch.setattr(forms, "BLOCK", block)
    path = tmp_path / "zhwiki-20260101-pages-articles.xml.bz2"
    path = path if pack is not str.encode else path.with_suffix("")
    path.write_bytes(pack(DUMP))
    source = forms.open_source(str(path))
    assert forms.tell(source, "text") == "wikipedia"
    assert list(documents(source, "wikipedia", "text")) == [(True, article) for article in ARTICLES]


def test_a_dump_that_is_cut_is_named(tmp_path):
    (tmp_path / "a.xml").write_text(DUMP[: DUMP.rfind("<page>")], encoding="utf-8")
    assert "a.xml: a Wikipedia dump without its end" in check_file(str(tmp_path / "a.xml"), "text")["error"]


@pytest.mark.parametrize(
    "markup, lines",
    [
        ("'''数学'''和''几何''。", ["数学和几何。"]),
        ("[[数量]]、[[结构|结构学]]、[[:Category:代数|代数]]。", ["数量、结构学、代数。"]),
        ("前{{lang|en|a{{b}}}}后{{noteTA|\n|1=x\n}}。", ["前后。"]),
        ("数学（{{lang-en|mathematics}}）和（{{x}}，古称算学）。", ["数学和（古称算学）。"]),
        ("前[[File:A.jpg|thumb|图说[[链接]]。]][[文件:B.jpg]][[Category:数学]][[分类:数]][[en:Maths]]后。", ["前后。"]),
        ("前<ref>出处</ref><ref name=a />中<math>a^2</math>后<!-- 注 -->。", ["前中后。"]),
        ('前。\n{| class="wikitable"\n! 头\n|-\n| 格 || [[乙]]\n|}\n后。', ["前。", "后。"]),
        ("前。\n{| 没有关上\n| 格\n后。", ["前。", "后。"]),
        ("== 历史 ==\n正文。\n=== 古代 ===\n古文。\n== 外部链接 ==\n* [http://a 甲]\n", ["正文。", "古文。"]),
        ("* 一\n# 二\n: 三\n", ["一", "二", "三"]),
        ("见[http://a.b 网站]，[http://c.d]。", ["见网站，。"]),
        (
            "甲<br />乙<small>丙</small><div>丁</div><nowiki>[[戊]]</nowiki>&amp;&nbsp;己",
            ["甲", "乙丙", "丁[[戊]]&\xa0己"],
        ),
        ("<gallery>\nA.jpg|甲\n</gallery>__NOTOC__乙", ["乙"]),
        ("-{zh-hans:计算机;zh-hant:電腦}-", ["计算机"]),
        ("-{zh-cn:计算机; zh-tw:電腦; zh-hk:電腦;}-", ["计算机"]),
        ("-{zh-tw:電腦}-", ["電腦"]),
        ("-{H|zh-cn:甲;zh-tw:乙}--{T|zh:丙}-丁-{A|zh-cn:戊;zh-tw:己}-", ["丁戊"]),
        ("-{R|原样}--{照抄}--{zh-tw|仅台}-", ["原样照抄仅台"]),
        ("-{zh-hans:{{x}}甲;zh-hant:乙}-", ["甲"]),
        ("[[-{zh-hans:甲;zh-hant:乙}-|丙]]", ["丙"]),
    ],
)
def test_what_is_seen_of_markup(markup, lines):
    assert lines_of_article(markup, None) == lines


def test_the_traditional_variant_and_script():
    assert lines_of_article("-{zh-hans:计算机;zh-tw:電腦}-和-{zh-cn:数据}-", "traditional") == ["電腦和数据"]
    assert to_script("traditional")("汉字") == "漢字" and to_script("simplified")("漢字") == "汉字"
    assert to_script(None)("漢字") == "漢字"


def test_what_is_not_installed_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    (tmp_path / "a.xml").write_text(DUMP, encoding="utf-8")
    error = check_file(str(tmp_path / "a.xml"), "text")["error"]
    assert "needs mwparserfromhell" in error and "pip install mwparserfromhell, or pip install" in error
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(InputError, match="--script simplified needs opencc"):
        to_script.__wrapped__("simplified")


def test_a_dump_becomes_a_corpus_whoever_cuts_it(tmp_path):
    pages = "".join(
        page(f"第{n}", f"'''第{n}'''是{{{{x}}}}[[數|數字]]。後面還有{n}句話<ref>略</ref>。") for n in range(60)
    )
    (tmp_path / "zhwiki.xml.bz2").write_bytes(multistream(HEAD + pages + "</mediawiki>\n"))
    for workers in ("1", "2"):
        preprocess.main(
            ["sentences", "--input", str(tmp_path / "zhwiki.xml.bz2"), "--output", str(tmp_path / workers)]
            + ["--dev_fraction", "0.2", "--script", "simplified", "--workers", workers]
        )
    texts = [
        "".join((tmp_path / workers / part / "part_00000.txt").read_text("utf-8") for part in ("train", "dev"))
        for workers in ("1", "2")
    ]
    found = {line.replace(" ", "") for line in texts[0].splitlines()}
    assert texts[0] == texts[1] and len(found) == 120 and {"第7是数字。", "后面还有7句话。"} <= found
