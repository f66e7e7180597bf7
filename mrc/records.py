"""JSON that a user wrote: what stands under a name, of the type that is wanted; `ValueError` says what is wrong."""

import json
from pathlib import Path
from typing import Any, Iterator, List

from elmo_chinese.text.reading import read_lines


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a file; raises what `read_lines` raises."""
    return (line for block in read_lines(path) for line in block)


def parse(text: str, **how: Any) -> Any:
    """Return what a text in JSON says.

    Args:
        how: handed on to `json.loads`.
    """
    try:
        return json.loads(text, **how)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text else ""
        raise ValueError(f"not JSON: {place}column {error.colno}: {error.msg}")
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deep")


def get(record: Any, name: str, kind: type, default: Any = None) -> Any:
    """Return what stands under a name; a number is text, too (an id)."""
    if not isinstance(record, dict):
        raise ValueError(f"expected an object with {name!r}, found {record!r:.60}")
    value = record.get(name, default)
    if kind is str and type(value) is int:
        value = str(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name!r} is {'missing' if name not in record else f'{value!r:.60}'}")
    return sound(value) if kind is str else value


def sound(text: Any) -> str:
    """Return a text that can be written as UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"expected text, found {text!r:.60}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"half of a character (a lone surrogate) in {text!r:.60}")
    return text


def strings(record: Any, name: str) -> List[str]:
    """Return the list of texts that stands under a name."""
    return [sound(text) for text in get(record, name, list)]


def word_rows(record: Any, name: str) -> List[List[str]]:
    """Return the rows of words that stand under a name; a row may be a text with white space between its words."""
    rows = get(record, name, list)
    return [[sound(word) for word in row] if isinstance(row, list) else sound(row).split() for row in rows]
