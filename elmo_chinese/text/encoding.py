"""Which encoding bytes of Chinese text are in."""

import codecs
import functools

# What a byte order mark says; UTF-32 first, as its mark begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Python's codecs, by the names that people and iconv know.
NAMES = {
    **{"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"},
    **{"utf-32": "UTF-32", "gb18030": "GB18030", "big5hkscs": "BIG5-HKSCS"},
}
LOOKED_AT = 2**16  # characters
# Where the frequent characters stand in the code tables: lead bytes, and what follows them.
GB18030 = ("gb18030", range(0xB0, 0xD8), range(0xA1, 0xFF))
BIG5 = ("big5hkscs", range(0xA4, 0xC7), [*range(0x40, 0x7F), *range(0xA1, 0xFF)])
# By which table's frequent characters an encoding is told; UTF-16 without a mark only where there are zeros.
FREQUENT = {"gb18030": (GB18030,), "big5hkscs": (BIG5,), "utf-16-le": (GB18030, BIG5), "utf-16-be": (GB18030, BIG5)}


def guess_encoding(start: bytes) -> str:
    """Return the codec for text that starts like this; bytes that fit none are said to be the most likely one's.

    Args:
        start: the first bytes, some hundred of them other than ASCII if there are so many; may end within a character.
    """
    for mark, name in MARKS:
        if start.startswith(mark):
            return name
    zeros = start[::2].count(0), start[1::2].count(0)
    if 4 * sum(zeros) > len(start) and not all(zeros):  # the upper halves of ASCII characters
        return "utf-16-le" if zeros[1] else "utf-16-be"
    # Damaged UTF-8 still decodes but for a few bytes; of the others little does.
    lost = len(start) - len(start.decode("utf-8", "ignore").encode("utf-8"))
    if 4 * lost <= len(start.translate(None, bytes(range(128)))) or _decodes(start, "utf-8"):
        return "utf-8-sig"
    return max(FREQUENT if any(zeros) else list(FREQUENT)[:2], key=lambda name: _frequent(start, name))


def _decodes(data: bytes, name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _frequent(data: bytes, name: str) -> float:
    """Return the share of frequent characters among those that are not ASCII, 0 to 1, if this is the encoding."""
    text = [character for character in data.decode(name, "replace")[:LOOKED_AT] if character > "\x7f"]
    return sum(map(_frequent_characters(name).__contains__, text)) / max(1, len(text))


@functools.lru_cache(maxsize=None)
def _frequent_characters(name: str) -> frozenset:
    found = ""
    for table, leads, trails in FREQUENT[name]:
        found += bytes(byte for lead in leads for trail in trails for byte in (lead, trail)).decode(table, "ignore")
    return frozenset(found)
