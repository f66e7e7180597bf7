"""From a line of text to its sentences."""

import re
from typing import List

# Marks that end a sentence, with the ellipses and further marks that belong to them and the quotes and brackets that
# close right after.
END = re.compile(r"[。！？!?｡‼⁇⁈⁉][。！？!?｡‼⁇⁈⁉…]*[”’』」）)】》〉｣］\]]*")
ELLIPSIS = re.compile(r"(?:。{2,}|｡{2,})[”’』」）)】》〉｣］\]]*")
BRACKETS = {"《": "》", "（": "）", "(": ")", "【": "】", "［": "］", "[": "]"}
OPENING = re.compile("[" + re.escape("".join(BRACKETS)) + "]")
FARTHEST = 100  # characters to a closing bracket; one farther off, or none, is taken as forgotten

# Full-width characters and the ASCII ones that they are; four CJK marks have half-width forms that nobody means.
WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
CJK_MARKS = dict(zip(map(ord, "｡｢｣､"), "。「」、"))
WIDTHS = {
    "half": {**WIDE, **CJK_MARKS},
    "full": {**{narrow: wide for wide, narrow in WIDE.items()}, **CJK_MARKS},
}
BLANKS = re.compile("[\\s\u200b\u2060\ufeff]+")
CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]+")


def normalise(line: str, width: str) -> str:
    """Return a line with one width of letters, digits and signs, single blanks, and no control characters.

    Args:
        width: "half": full-width forms become ASCII (Ａ１，→ A1,); "full": ASCII becomes full-width; "none": the line
            stays as it is.
    """
    if width == "none":
        return line
    return BLANKS.sub(" ", CONTROLS.sub("", line)).strip().translate(WIDTHS[width])


def split_sentences(line: str) -> List[str]:
    """Return the sentences of a line; joined up they are the line without white space at cuts.

    A sentence ends after 。！？ and their like, with the quotes and brackets that close there. It goes on after an
    ellipsis (… or 。。。), before a comma, inside a title 《…》, inside brackets that opened within it, and where an
    ASCII ! or ? stands between ASCII characters (as in an address). A full stop of Latin script or a decimal point
    never ends one.
    """
    sentences, start = [], 0
    for match in END.finditer(line):
        end = match.end()
        if line[end : end + 1] in ('"', "'") and line.count(line[end], start, end) % 2:
            end += 1  # a straight quote that closes
        if not _goes_on(line, start, match, end):
            sentences.append(line[start:end].strip())
            start = end
    sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _goes_on(line: str, start: int, match, end: int) -> bool:
    """Say whether the sentence from `start` goes on after the end marks of `match`, which reach to `end`."""
    marks, after = match.group(), line[end : end + 1]
    if after and after in "，、；：,;:" or ELLIPSIS.fullmatch(marks):
        return True
    before = line[start : match.start()].lstrip()
    if marks.isascii() and before[-1:].isascii() and not before[-1:].isspace() and after.isascii() and after.isalnum():
        return before != ""
    if OPENING.search(before):
        for opening, closing in BRACKETS.items():
            place = before.rfind(opening)
            # A bracket that opens the sentence holds all of it; a title does not, wherever it stands.
            if place > before.rfind(closing) and (place > 0 or opening == "《"):
                return line.find(closing, match.start(), end + FARTHEST) >= 0
    return False
