"""Baidu's released LAC models (Fluid folders inside the source package `LAC` 2.1.2), as they are.

    python -m lac.release                      get the package through pip
    python -m lac.release LAC-2.1.2.tar.gz     or take it from a file or an unpacked folder

unpacks the models into the cache and says where. A model is a folder with `conf/` (sizes, dictionaries) and `model/`
(one file for each variable). What the release has of its own is here: its dictionaries and how text is cut into
tokens. Network, decoder and batches are those of the project's taggers (`network.py`, `crf.py`, `model.py`).
"""

import runtime  # noqa: F401, I001  first: its settings must be made before Paddle is imported

import configparser
import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from archive import default_cache, extract
from lac.model import Encoded, Model, decoder, pad, predict_ids
from lac.network import Tagger
from lac.rank import Ranker
from lac.reader import read_table
from options import Parser, fail
from pretrained import PretrainedError, fluid_shape, read_fluid_variable
from reader import InputError, read_lines

PACKAGE = "LAC==2.1.2"
MODES = ("lac", "seg", "rank")
# A longer text is tagged in pieces of so many tokens, cut after the end of a sentence where there is one.
MAX_TOKENS = 20_000
SENTENCE_ENDS = frozenset("。！？!?\n")
ASCII_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Release(NamedTuple):
    """A released model.

    Attributes:
        mode: "lac" (words and tags), "seg" (words) or "rank" (words, tags and weights).
        model: network, decoder and tags; its vocabulary is `ids`.
        ids: of tokens, after `model.table` has replaced single characters. unknown: the id of all others.
        cut: text → tokens, which joined up are the text.
        ranker: in mode "rank", what weighs tokens.
        folder: where it is.
    """

    mode: str
    model: Model
    ids: Dict[str, int]
    unknown: int
    cut: Callable[[str], List[str]]
    ranker: Optional[Ranker]
    folder: Path


# --- getting it ---


def cache_folder() -> Path:
    """Return where the unpacked models are kept."""
    return default_cache() / PACKAGE.replace("==", "-")


def fetch(source: Optional[str] = None) -> Path:
    """Return the folder with `lac_model`, `seg_model`, `rank_model`, after getting and unpacking it if need be.

    Args:
        source: the package's file or folder; None: the cache, else pip.

    Raises:
        InputError: it cannot be had, or it is not that package.
    """
    if source and Path(source).is_dir():
        return _with_models(Path(source), source)
    if not source and cache_folder().is_dir():
        return cache_folder()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(source) if source else _download(folder)
        unpacked = Path(folder, "unpacked")
        extract(archive, unpacked, str(archive.name), lambda name: "_model/" in name)
        models = _with_models(unpacked, str(archive))
        target = cache_folder()
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
        try:
            for mode in MODES:
                shutil.copytree(models / f"{mode}_model", beside / f"{mode}_model")
            if target.is_dir():  # another process was quicker, or a source was given again
                shutil.rmtree(target)
            os.rename(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def _download(folder: str) -> Path:
    """Get the source package through pip; its set-up script, which pip runs, wants an old setuptools."""
    constraint = Path(folder, "constraint.txt")
    constraint.write_text("setuptools<81\n", encoding="utf-8")
    environment = {**os.environ, "PIP_CONSTRAINT": str(constraint), "PIP_BUILD_CONSTRAINT": str(constraint)}
    download = ["pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PACKAGE, "-d", folder]
    output = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    done = subprocess.run([sys.executable, "-m", *download], env=environment, **output)
    found = sorted(Path(folder).glob("*.tar.gz"))
    if done.returncode or not found:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"pip could not get {PACKAGE}: {last}; give its file: python -m lac.release LAC-2.1.2.tar.gz")
    return found[0]


def _with_models(folder: Path, name: str) -> Path:
    for found in sorted({path.parent for path in [folder / "lac_model", *folder.rglob("lac_model")]}):
        missing = [f"{mode}_model" for mode in MODES if not (found / f"{mode}_model" / "conf").is_dir()]
        if not missing:
            return found
    raise InputError(f"{name}: not the package {PACKAGE}: no folder in it has {', '.join(f'{m}_model' for m in MODES)}")


# --- dictionaries ---


def _rows(path: Path) -> List[List[str]]:
    """Return the lines `id<TAB>text` of a dictionary."""
    rows = []
    for number, line in enumerate((line for block in read_lines(path) for line in block), start=1):
        row = line.rstrip("\r").split("\t")
        if row == [""]:
            continue
        if len(row) != 2 or not row[0].isdecimal():
            raise InputError(f"{path}: line {number}: expected `id<TAB>text`, found {line[:60]!r}")
        rows.append(row)
    return rows


def read_tag_names(path: Path) -> List[str]:
    """Return the tags by id; the last line for an id names it."""
    names = {int(number): name for number, name in _rows(path)}
    if sorted(names) != list(range(len(names))):
        raise InputError(f"{path}: the ids are not 0 to {len(names) - 1}")
    return [names[number] for number in range(len(names))]


def read_ids(path: Path) -> Dict[str, int]:
    """Return the ids of tokens; `OOV` stands for all others."""
    ids = {token: int(number) for number, token in _rows(path)}
    if "OOV" not in ids:
        raise InputError(f"{path}: no token OOV in it")
    return ids


class Cutter:
    """Cuts text into tokens along the best path of dictionary words.

    A piece scores log(its length if it is a word of the dictionary, else 1) - log(sum of all counts); so the release
    does it, although a unigram model would take the word's count.

    Args:
        path: of `small_seg.dic`, lines `word count`.
        tokens: what may be one token; other pieces fall into characters.
    """

    def __init__(self, path: Path, tokens: Dict[str, int]):
        self.tokens, self.words, total = tokens, {}, 0
        self.starts = set()  # of words: where none goes on like this, there is nothing longer to look for
        for number, line in enumerate((line for block in read_lines(path) for line in block), start=1):
            word, _, count = line.rstrip("\r").partition(" ")
            if not count.isdecimal():
                raise InputError(f"{path}: line {number}: expected `word count`, found {line[:60]!r}")
            total += int(count)
            self.words[word] = math.log(len(word))
            self.starts.update(word[:end] for end in range(1, len(word)))
        self.words = {word: score - math.log(total) for word, score in self.words.items()}
        self.one = math.log(1) - math.log(total)

    def __call__(self, text: str) -> List[str]:
        """Return the tokens of a text."""
        size, words, starts = len(text), self.words, self.starts
        best, ends = [0.0] * (size + 1), [0] * size
        for start in range(size - 1, -1, -1):
            most, end_of_most, end = self.one + best[start + 1], start + 1, start + 1
            piece = text[start:end]
            while piece in starts and end < size:
                end += 1
                piece = text[start:end]
                score = words.get(piece)
                if score is not None and score + best[end] >= most:  # of equally good ones, the longest
                    most, end_of_most = score + best[end], end
            best[start], ends[start] = most, end_of_most
        tokens, start = [], 0
        while start < size:
            end = ends[start]
            if end == start + 1 and text[start] in ASCII_WORD:  # letters and digits that stand alone stay together
                while end < size and ends[end] == end + 1 and text[end] in ASCII_WORD:
                    end += 1
            piece = text[start:end]
            if piece in self.tokens:
                tokens.append(piece)
            else:
                tokens.extend(piece)
            start = end
        return tokens


# --- loading ---


def is_release(path: Union[str, Path]) -> bool:
    """Say whether a folder is one of the released models, or holds them."""
    return (Path(path) / "conf" / "args.ini").is_file() or (Path(path) / "lac_model").is_dir()


def load(path: Optional[Union[str, Path]] = None, mode: str = "lac") -> Release:
    """Return a released model.

    Args:
        path: its folder, or the folder with `lac_model`, `seg_model` and `rank_model`; None: `fetch` it.
        mode: "lac", "seg" or "rank"; rank wants the folder with all of them.

    Raises:
        InputError, PretrainedError: a file is missing, truncated, or does not fit the others.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    root = Path(path) if path else fetch()
    if mode == "rank":
        if not (root / "rank_model").is_dir():
            raise InputError(f"{root}: mode rank wants the folder that has lac_model and rank_model in it")
        return load(root, "lac")._replace(mode=mode, ranker=Ranker.from_fluid(root / "rank_model" / "model"))
    folder = root / f"{mode}_model" if (root / f"{mode}_model").is_dir() else root
    conf = folder / "conf"
    tags, ids = read_tag_names(conf / "tag.dic"), read_ids(conf / "word.dic")
    table = read_table(conf / "q2b.dic")
    tagger = make_tagger(folder, len(ids), len(tags))
    cut = Cutter(conf / "small_seg.dic", ids) if (conf / "small_seg.dic").is_file() else list
    model = Model(decoder(tagger), None, tags, table, None, tagger)
    return Release(mode, model, ids, ids["OOV"], cut, None, folder)


def make_tagger(folder: Path, num_words: int, num_tags: int, encoder=None, **options) -> Tagger:
    """Return the network of a released model, filled; the sizes come from the files.

    Args:
        num_words, num_tags: of its dictionaries, to be compared with the files.
        encoder, options: of `Tagger`. An encoder's columns of the first weights are zero, so that the answers are at
            first the same as without it.
    """
    files = folder / "model"
    for name in ("word_emb", "crfw", "gru_0.w_0", "fc_4.w_0"):
        if not (files / name).is_file():
            raise PretrainedError(f"{files / name}: no such file; it is not a released LAC model, or not all of it")
    words, embed = fluid_shape(files / "word_emb")
    hidden, tags = fluid_shape(files / "gru_0.w_0")[0], fluid_shape(files / "crfw")[1]
    _check_config(folder / "conf" / "args.ini", dict(word_emb_dim=embed, grnn_hidden_dim=hidden, bigru_num=2))
    for what, found, expected in (("tokens", num_words, words), ("tags", num_tags, tags)):
        if found != expected:
            raise PretrainedError(f"{folder}: its dictionary has {found} {what}, its network {expected}")
    tagger = Tagger(words, tags, embed, hidden, 2, encoder=encoder, **options)
    extra = encoder.embedding_dim if encoder else 0

    def fill(parameter, array):
        if list(array.shape) != parameter.shape:
            raise PretrainedError(f"{files}: expected shape {parameter.shape}, found {list(array.shape)}")
        parameter.set_value(array.astype(np.float32))

    variables = _variables(files)
    fill(tagger.word_embedding, variables["word_emb"])
    grus = [gru for block in tagger.blocks for gru in (block.forward_gru, block.backward_gru)]
    for number, gru in enumerate(grus):
        flat = variables[f"gru_{number}.w_0"].ravel()
        input_w = variables[f"fc_{number}.w_0"]
        if number < 2 and extra:
            input_w = np.concatenate([np.zeros((extra, input_w.shape[1]), np.float32), input_w])
        fill(gru.input_w, input_w)
        fill(gru.input_b, variables[f"fc_{number}.b_0"].ravel() + variables[f"gru_{number}.b_0"].ravel())
        fill(gru.gate_w, flat[: 2 * hidden * hidden].reshape(hidden, 2 * hidden))
        fill(gru.candidate_w, flat[2 * hidden * hidden :].reshape(hidden, hidden))
    fill(tagger.output_w, variables["fc_4.w_0"])
    fill(tagger.output_b, variables["fc_4.b_0"].ravel())
    fill(tagger.crfw, variables["crfw"])
    tagger.eval()
    return tagger


def _variables(files: Path) -> Dict[str, np.ndarray]:
    names = ["word_emb", "crfw", "fc_4.w_0", "fc_4.b_0"]
    names += [f"{kind}_{n}.{part}" for kind in ("fc", "gru") for n in range(4) for part in ("w_0", "b_0")]
    missing = [name for name in names if not (files / name).is_file()]
    if missing:
        raise PretrainedError(f"{files}: missing {', '.join(missing)}")
    return {name: read_fluid_variable(files / name) for name in names}


def _check_config(path: Path, sizes: Dict[str, int]) -> None:
    """Compare what args.ini says with the files."""
    config = configparser.ConfigParser()
    try:
        config.read_string("\n".join(line for block in read_lines(path) for line in block))
        said = {name: config.getint("NETWORK_CONFIG", name) for name in sizes}
    except (configparser.Error, ValueError) as error:
        raise InputError(f"{path}: not the configuration of a released model: {error}")
    for name, value in sizes.items():
        if said[name] != value:
            raise PretrainedError(f"{path}: {name} is {said[name]}, but the files of the network say {value}")


# --- tagging ---


class Tagged(NamedTuple):
    """A text as the model sees it: a tag for each character and, in mode rank, a weight."""

    tags: List[str]
    weights: Optional[List[int]]


def token_ids(release: Release, tokens: Sequence[str]) -> np.ndarray:
    """Return the ids of tokens, int64."""
    ids, table, unknown = release.ids, release.model.table, release.unknown
    # Only a token of one character is replaced: the table knows characters, and the release looks up whole tokens.
    looked_up = (table.get(ord(token), token) if len(token) == 1 else token for token in tokens)
    return np.array([ids.get(token, unknown) for token in looked_up], dtype=np.int64)


def tag_characters(release: Release, texts: Sequence[str]) -> List[Tagged]:
    """Tag each character of texts; the order is kept, and a text gets the same tags alone or among others."""
    pieces = [(number, piece) for number, text in enumerate(texts) for piece in _pieces(release.cut(text))]
    words = [token_ids(release, piece) for _, piece in pieces]
    encoded = Encoded(words, None, np.array([len(ids) for ids in words], dtype=np.int64))
    paths = predict_ids(release.model, encoded) if pieces else []
    weights = release.ranker.weights(words, paths, pad) if release.ranker else itertools.repeat(None)
    tagged = [Tagged([], [] if release.ranker else None) for _ in texts]
    for (number, piece), path, weight in zip(pieces, paths, weights):
        for place, (token, tag) in enumerate(zip(piece, path)):
            name = release.model.tags[tag]
            tagged[number].tags.append(name)
            tagged[number].tags.extend([kind(name) + "-I"] * (len(token) - 1))
            if weight is not None:
                tagged[number].weights.extend([int(weight[place])] * len(token))
    return tagged


def _pieces(tokens: List[str]) -> List[List[str]]:
    """Cut a long list of tokens, after the end of a sentence where there is one; an empty one has no piece."""
    pieces = []
    while len(tokens) > MAX_TOKENS:
        cuts = (place for place in range(MAX_TOKENS, 0, -1) if tokens[place - 1] in SENTENCE_ENDS)
        cut = next(cuts, MAX_TOKENS)
        pieces.append(tokens[:cut])
        tokens = tokens[cut:]
    return pieces + [tokens] if tokens else pieces


def kind(tag: str) -> str:
    """Return the type of a tag: what stands before its ending."""
    return tag[:-2]


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.release", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", nargs="?", help="the package's file or folder; none: get it through pip")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        folder = fetch(options.source)
        for mode in MODES:
            release = load(folder, mode)
            print(f"{folder / (mode + '_model')}: {len(release.ids)} tokens, {len(release.model.tags)} tags")
    except (InputError, PretrainedError) as error:
        fail(error)


if __name__ == "__main__":
    main()
