"""Wikipedia as it is published: articles of `…wiki-…-pages-articles.xml.bz2`, and what a reader sees of their markup.

The dump is read as a stream of pages; their markup is taken away later, by the processes that cut words, since
that is most of the work. mwparserfromhell parses it; what a page shows only after other pages were filled in
(templates) or what is no running text (tables, files, references, formulas, headings) is left out.
"""

import functools
import re
from typing import Any, Callable, Iterator, List, Optional
from xml.sax.saxutils import unescape

from elmo_chinese.text.reading import InputError, split_lines

NAMESPACE = re.compile(r"<ns>(-?\d+)</ns>")
MODEL = re.compile(r"<model>([^<]*)</model>")
TEXT = re.compile(r"<text(?:\s[^>]*)?(?<!/)>(.*?)</text>", re.DOTALL)

# Links to these show nothing where they stand, or a picture.
HIDDEN_LINK = re.compile(
    r"\s*(file|image|media|文件|檔案|档案|图像|圖像|图片|圖片|媒体|媒體|category|分类|分類|[a-z]{2,3}|zh-[a-z-]+|simple)\s*:",
    re.IGNORECASE,
)
# Tags whose content is no running text, and those that end a line.
NO_TEXT = {
    *("ref", "references", "table", "gallery", "math", "chem", "ce", "score", "timeline", "code", "pre", "source"),
    *("syntaxhighlight", "imagemap", "graph", "mapframe", "maplink", "hiero", "inputbox", "templatestyles", "style"),
}
BREAKS = {"br", "p", "div", "hr", "li", "dt", "dd", "blockquote", "center", "poem"}
# Sections that are lists of sources and links.
NO_SECTION = re.compile(
    "参考(文献|资料|来源)?|參考(文獻|資料|來源)?|参见|參見|参看|參看|注释|註釋|注釋|脚注|腳註|外部(链接|連結|連接)|"
    "延伸阅读|延伸閱讀|相关条目|相關條目|资料来源|資料來源|来源|來源"
)
QUOTES = re.compile("'{2,}")  # italic and bold
MAGIC = re.compile("__[A-Z]+__")
# What a template stood in, whole or at the start of.
EMPTY_BRACKETS = re.compile(r"[（(][\s，,；;、:：/]*[）)]|(?<=[（(])[\s，,；;、:：/]+")
NO_LINE = re.compile(r"[|!{}]")  # left of a table that is not closed

# `-{ }-`: text that differs between the scripts and regions of Chinese.
VARIANT = re.compile(r"-\{([^{}]*)\}-")
FLAGS = re.compile(r"\s*([A-Z+-]|zh(-[a-z]+)?)(\s*;\s*([A-Z+-]|zh(-[a-z]+)?))*\s*")
HIDDEN = {"H", "T", "D", "N", "-"}  # rules for the whole page, its title, and their descriptions
RULE = re.compile(r"\s*(?:[^;:]*=>\s*)?(zh(?:-[a-z]+)?)\s*:(.*)", re.DOTALL)
NEXT_RULE = re.compile(r";\s*(?=(?:[^;:]*=>\s*)?zh[a-z-]*\s*:)")
PREFERRED = {
    "simplified": ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh"),
    "traditional": ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh"),
}
CONVERSIONS = {"simplified": "t2s", "traditional": "s2t"}


def needed(name: str, package: str, purpose: str) -> Any:
    """Return a module that only some users need.

    Raises:
        InputError: it is not installed; with what installs it.
    """
    try:
        return __import__(name)
    except ImportError as error:
        raise InputError(
            f"{purpose} needs {package} ({error}): pip install {package}, or "
            'pip install "/path/to/the/clone[wikipedia]"'
        )


@functools.lru_cache(maxsize=None)
def to_script(script: Optional[str]) -> Callable[[str], str]:
    """Return what writes a text in "simplified" or "traditional" characters, by OpenCC; None: it stays as it is."""
    if script is None:
        return str
    return needed("opencc", "opencc", f"--script {script}").OpenCC(CONVERSIONS[script]).convert


# --- the dump ---


def articles(path: str, blocks: Iterator[str]) -> Iterator[List[str]]:
    """Yield the markup of each article, in a list of its own: no redirects, talks, templates and the like.

    Args:
        path: for messages. blocks: the dump's text.

    Raises:
        InputError: the dump ends too early; mwparserfromhell is not installed.
    """
    needed("mwparserfromhell", "mwparserfromhell", f"reading Wikipedia ({path})")
    rest = ""
    for block in blocks:
        *pages, rest = (rest + block).split("</page>")
        for page in pages:
            head, _, revisions = page[page.rfind("<page>") :].partition("<revision>")
            namespace, model, texts = NAMESPACE.search(head), MODEL.search(revisions), TEXT.findall(revisions)
            if namespace and namespace[1] == "0" and "<redirect" not in head and texts:
                if model is None or model[1] == "wikitext":
                    yield [unescape(texts[-1], {"&quot;": '"', "&#039;": "'"})]
    if "</mediawiki>" not in rest:
        raise InputError(f"{path}: a Wikipedia dump without its end (</mediawiki>); is the file cut? Get it again")


# --- markup ---


def lines_of_article(markup: str, script: Optional[str]) -> List[str]:
    """Return the lines of running text of an article.

    Args:
        script: which of the variants in `-{ }-` is taken, "traditional" or else the simplified one.
    """
    parser = needed("mwparserfromhell", "mwparserfromhell", "reading Wikipedia")
    preferred = PREFERRED[script or "simplified"]
    text = _seen(parser.parse(_one_variant(markup, preferred), skip_style_tags=True).nodes, parser.nodes)
    text = MAGIC.sub("", QUOTES.sub("", _one_variant(text, preferred)))  # a variant may hold a template, now gone
    lines = (EMPTY_BRACKETS.sub("", line).strip() for line in split_lines(text))
    return [line for line in lines if line and not NO_LINE.match(line)]


def _seen(nodes: List[Any], kinds: Any) -> str:
    """Return what is seen of the nodes of a page; `kinds` is the module that defines them."""
    found, left_out = [], False
    for node in nodes:
        if isinstance(node, kinds.Heading):
            left_out = NO_SECTION.fullmatch(str(node.title).strip()) is not None
            found.append("\n")
        elif left_out:
            continue
        elif isinstance(node, kinds.Text):
            found.append(str(node.value))
        elif isinstance(node, kinds.HTMLEntity):
            found.append(node.normalize())
        elif isinstance(node, kinds.Wikilink):
            if not HIDDEN_LINK.match(str(node.title)):
                shown = node.title if node.text is None else node.text
                found.append(_seen(shown.nodes, kinds).lstrip(":" if node.text is None else ""))
        elif isinstance(node, kinds.ExternalLink):
            found.append(_seen(node.title.nodes, kinds) if node.title is not None else "")
        elif isinstance(node, kinds.Tag):
            tag = str(node.tag).strip().lower()
            if tag in BREAKS:
                found.append("\n" if node.wiki_markup is None else "")
            if tag not in NO_TEXT and node.contents is not None:
                found.append(_seen(node.contents.nodes, kinds))
    return "".join(found)


def _one_variant(text: str, preferred: tuple) -> str:
    """Return a text with one variant of each `-{ }-`."""
    return VARIANT.sub(lambda match: _variant(match[1], preferred), text)


def _variant(body: str, preferred: tuple) -> str:
    flags, bar, rules = body.partition("|")
    if not bar or not FLAGS.fullmatch(flags):
        flags, rules = "", body
    flags = {flag.strip() for flag in flags.split(";")}
    if flags & HIDDEN:
        return ""
    found = {}
    for rule in [] if "R" in flags else NEXT_RULE.split(rules):
        parts = RULE.fullmatch(rule.strip().rstrip(";"))
        if parts:
            found.setdefault(parts[1], parts[2].strip())
    if not found:
        return rules
    return next((found[name] for name in preferred if name in found), next(iter(found.values())))
