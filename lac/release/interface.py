"""The interface of LAC 2.1: `from lac import LAC`, with a user's own words.

Own words are items of one or more pieces of text, each with a label (`text/TYPE`) or without (`text`):
`长江大桥/BRIDGE`, `小程序/n 跑`. Wherever its whole text occurs it is cut at the ends of its pieces, whatever the
tagger says; a piece without a label keeps the tagger's. A single character without a label says nothing and is left
out.
"""

import itertools
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple, Union

from elmo_chinese.console import say
from elmo_chinese.storage.checkpoint import candidates
from elmo_chinese.text.reading import InputError, read_lines
from elmo_chinese.training import session

from lac import model as tagging
from lac import release
from lac.lines import Span
from lac.model import Tagged

# So many texts are in work at a time.
TEXTS_AT_A_TIME = 2048


# --- own words ---

Item = List[Tuple[str, str]]  # pieces and their labels, "" where there is none


class Items:
    """Items by their text; `starts` holds what their texts start with, to know when to stop looking."""

    def __init__(self):
        self.by_text: Dict[str, Item] = {}
        self.starts: Set[str] = set()

    def add(self, line: str, sep: Optional[str] = None) -> None:
        """Add an item: its pieces, apart by `sep` (None: by white space)."""
        pieces = []
        for piece in map(str.strip, line.strip().split(sep)):
            text, slash, label = piece.rpartition("/")
            text, label = (text, label) if slash and text else (piece, "")
            if text:
                pieces.append((text, label))
        text = "".join(piece for piece, _ in pieces)
        if len(text) > 1 or (text and pieces[0][1]):
            self.by_text[text] = pieces
            self.starts.update(text[:end] for end in range(1, len(text)))


def read_items(path: str, sep: Optional[str] = None) -> Items:
    """Return the items of a file, one a line; `InputError`: no such file, or not UTF-8."""
    items = Items()
    for line in itertools.chain.from_iterable(read_lines(path)):
        items.add(line, sep)
    return items


def apply_items(items: Items, tagged: Tagged) -> Tagged:
    """Return a text by characters, tagged as the items have it wherever one of them occurs, elsewhere as it was.

    The first character of a token has its tag, the others go on with it.
    """
    text, bio, weights = "".join(tagged.tokens), [], None if tagged.weights is None else []
    for number, (token, tag) in enumerate(zip(tagged.tokens, tagged.bio)):
        bio += [tag, *[tag[:-2] + "-I"] * (len(token) - 1)]
        if weights is not None:
            weights += [tagged.weights[number]] * len(token)
    furthest = 0
    for start in range(len(text)):
        end = start + 1
        while end <= len(text):
            piece = text[start:end]
            if piece in items.by_text and end > furthest:
                _overrule(bio, start, items.by_text[piece])
                furthest = end
            if piece not in items.starts:
                break
            end += 1
    return Tagged(list(text), bio, weights)


def _overrule(bio: List[str], start: int, item: Item) -> None:
    for text, label in item:
        for position in range(start, start + len(text)):
            bio[position] = (label or bio[position][:-2]) + ("-B" if position == start else "-I")
        start += len(text)
    if start < len(bio):  # what follows is another word
        bio[start] = bio[start][:-2] + "-B"


# --- the class ---


def _values(value: Any) -> List[str]:
    """Return what stands behind a flag."""
    return [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]


class LAC:
    """A tagger with the interface of LAC 2.1, for the released models and for those trained here.

    Args:
        model_path: a folder: of a released model, of the unpacked package's models, or of a run of `lac.train`.
            None: the released ones, which `lac.release` gets.
        mode: "lac" (words and tags), "seg" (words) or "rank" (words, tags and weights). A model trained here has no
            weights.
        use_cuda: not used any more (a GPU is used if Paddle has one).
    """

    def __init__(self, model_path: Optional[str] = None, mode: str = "lac", use_cuda: bool = False):
        if mode not in release.MODES:
            raise ValueError(f"mode must be one of {', '.join(release.MODES)}, got {mode!r}")
        self.path, self.mode, self.items, self.ranker = model_path, mode, Items(), None
        if model_path in ("lac", "seg"):  # as the other commands name the released ones
            model_path, self.path, self.mode = None, None, mode if mode == "rank" else model_path
            mode = self.mode
        if model_path is None or release.is_release(model_path):
            self.model = release.load(model_path, mode)
            self.ranker = release.load_ranker(model_path) if mode == "rank" else None
        elif mode == "rank":
            raise InputError(f"{model_path} has no weights of words; mode rank is for the released folders")
        else:
            self.model = tagging.load(model_path)
        if not self.model.text.typed:
            self.mode = "seg"  # it was trained to cut only

    def load_customization(self, customization_file: str, sep: Optional[str] = None) -> None:
        """Take the items of a file, one a line, in place of those so far; see above.

        Args:
            sep: what stands between the pieces of an item; None: white space.
        """
        self.items = read_items(customization_file, sep)

    def add_word(self, word: str, sep: Optional[str] = None) -> None:
        """Add one item, as a line of a customization file."""
        if not isinstance(word, str):
            raise TypeError(f"add_word takes a string, got {type(word).__name__}")
        self.items.add(word, sep)

    def train(self, model_save_dir: str, train_data: str, test_data: Optional[str] = None, **flags) -> None:
        """Train the model on, by `lac.train`, and go on with the best one.

        Args:
            model_save_dir: folder of the run.
            train_data: a file, or a list of them, of tagged lines of any form that `lac/lines.py` knows; in mode seg
                `word word …` will do.
            test_data: the same, held out: it decides which pass is kept and when to stop.
            flags: of `lac.train`, such as `max_epoch=5`, `base_learning_rate=1e-4`, `load_dir="auto"`; and those of
                LAC 2.1: iter_num, which is max_epoch, and thread_num, which MKL_NUM_THREADS decides here.

        Raises:
            InputError, OptionError, CheckpointError: what `python -m lac.train` would end with.
        """
        from lac.train import run  # slow to import, and only needed here

        if self.mode == "rank":
            raise InputError("mode rank: only the taggers, lac and seg, can be trained on")
        if "thread_num" in flags:
            say(f"thread_num={flags.pop('thread_num')} has no effect: MKL_NUM_THREADS in the environment decides")
        if "iter_num" in flags:
            flags["max_epoch"] = flags.pop("iter_num")
        flags = {"train_data": train_data, **({"dev_data": test_data} if test_data else {}), **flags}
        start = {"init_from": self.path or self.mode, "model_save_dir": model_save_dir}
        if self.path and self.mode == "seg" and (Path(self.path) / "seg_model").is_dir():
            start["init_from"] = str(Path(self.path) / "seg_model")
        load_dir = flags.get("load_dir")
        if load_dir and (load_dir != "auto" or any(candidates(model_save_dir))):
            del start["init_from"]  # the checkpoint says what it was made from
        flags = {**start, **flags}
        with session.signals_back():
            run([part for name, value in flags.items() for part in (f"--{name}", *_values(value))])
        self.path, self.model = model_save_dir, tagging.load(model_save_dir)

    def tag(self, texts: Sequence[str]) -> List[List[Span]]:
        """Return the words of texts, in their order; all characters are in one."""
        tagged = tagging.tag_tokens(self.model, texts, self.ranker and self.ranker.weights)
        if self.items.by_text:
            tagged = [apply_items(self.items, one) for one in tagged]
        return [one.spans() for one in tagged]

    def run(self, texts: Union[str, Sequence[str]]) -> list:
        """Tag a text or several.

        Args:
            texts: a string, or a list of strings, which is left as it is.

        Returns:
            of a string: in mode seg the list of its words, in mode lac `[words, tags]`, in mode rank
            `[words, tags, weights]`; of a list: a list of such answers, in the same order, an empty text's too.

        Raises:
            TypeError: neither a string nor a list of strings.
        """
        if isinstance(texts, str):
            return self.run([texts])[0]
        if not isinstance(texts, (list, tuple)):
            raise TypeError(f"run takes a string or a list of strings, got {type(texts).__name__}")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"run takes strings; number {number} of the list is {type(text).__name__}")
        answers = []
        for first in range(0, len(texts), TEXTS_AT_A_TIME):
            some = texts[first : first + TEXTS_AT_A_TIME]
            for text, found in zip(some, self.tag(some)):
                words = [text[span.start : span.end] for span in found]
                labels, weights = [span.label for span in found], [span.weight for span in found]
                answers.append({"seg": words, "lac": [words, labels], "rank": [words, labels, weights]}[self.mode])
        return answers
