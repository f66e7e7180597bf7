"""The figures of a corpus while it is made, and its `summary.json` and `summary.png`."""

from pathlib import Path
from typing import Any, Dict, List

from elmo_chinese.console import say

import numpy as np

PARTS = ("train", "dev")
LENGTHS = 1000  # sentences of so many words and more are counted together


def empty_figures() -> Dict[str, Any]:
    """Return the figures of a run that has just begun."""
    part = {"shards": 0, "written": 0, "documents": 0, "sentences": 0, "words": 0}
    figures = {name: dict(part) for name in PARTS}
    return {**figures, "repeated": 0, "blank_documents": 0, "longest": 0, "lengths": [0] * (LENGTHS + 1)}


def count_in(
    state: Dict[str, Any],
    documents: List[int],
    blank: int,
    dev: np.ndarray,
    lengths: np.ndarray,
    fresh: np.ndarray,
) -> None:
    """Add some documents to the figures of a run.

    Args:
        documents: how many, for train and dev. blank: how many of them hold no sentence.
        dev: 1 for each sentence that goes to dev. lengths: words of each. fresh: whether it stays. All `[n]`.
    """
    for is_dev, part in enumerate(PARTS):
        chosen = fresh & (dev == is_dev)
        state[part]["documents"] += documents[is_dev]
        state[part]["sentences"] += int(chosen.sum())
        state[part]["words"] += int(lengths[chosen].sum())
    state["repeated"] += int(len(fresh) - fresh.sum())
    state["blank_documents"] += blank
    state["longest"] = max(state["longest"], int(lengths[fresh].max(initial=0)))
    counted = np.bincount(np.minimum(lengths[fresh], LENGTHS), minlength=LENGTHS + 1)
    state["lengths"] = (np.array(state["lengths"]) + counted).tolist()


def summarise(files: List[dict], state: Dict[str, Any]) -> Dict[str, Any]:
    """Return the figures of a run as they go to `summary.json`."""
    counts = np.array(state["lengths"])
    reached = np.cumsum(counts) / max(1, counts.sum())
    words, total = (sum(state[part][name] for part in PARTS) for name in ("words", "sentences"))
    good = [file for file in files if not file["error"]]
    return {
        "files": {
            "read": len(good),
            "bytes": sum(file["bytes"] for file in good),
            "gb18030": sum(file["encoding"] == "gb18030" for file in good),
        },
        **{part: {name: state[part][name] for name in state[part] if name != "written"} for part in PARTS},
        "words_per_sentence": {
            "mean": round(words / max(1, total), 2),
            "median": int(np.searchsorted(reached, 0.5)),
            "percentile_99": int(np.searchsorted(reached, 0.99)),
            "longest": state["longest"],
        },
        "dropped": {
            "repeated_sentences": state["repeated"],
            "documents_without_text": state["blank_documents"],
            "bad_files": [file["error"] for file in files if file["error"]],
        },
        "sentences_by_words": np.trim_zeros(counts, "b").tolist(),
    }


def plot(summary: Dict[str, Any], path: Path) -> None:
    """Draw how many sentences have how many words, and how many were kept and dropped."""
    try:
        import matplotlib  # comes with visualdl
    except ImportError:
        say(f"no {path.name}: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), gridspec_kw={"width_ratios": [3, 2]})
    counts = summary["sentences_by_words"]
    left.bar(range(len(counts)), counts, width=1)
    left.set_xlim(0, max(2, 1.5 * summary["words_per_sentence"]["percentile_99"]))
    left.set_xlabel("words per sentence")
    left.set_ylabel("sentences")
    names = ["train", "dev", "repeated"]
    values = [summary["train"]["sentences"], summary["dev"]["sentences"], summary["dropped"]["repeated_sentences"]]
    for index, value in enumerate(values):
        right.annotate(f"{value:,}", (value, index), va="center", xytext=(3, 0), textcoords="offset points")
    right.barh(names, values)
    right.set_xlim(0, 1.5 * max(values) + 1)
    right.invert_yaxis()
    right.set_xlabel("sentences")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
