"""Baidu's released LAC models (Fluid folders inside the source package `LAC` 2.1.2), as they are.

    python -m lac.release                      get the package through pip
    python -m lac.release LAC-2.1.2.tar.gz     or take it from a file or an unpacked folder

unpacks the models into the cache and says where. A model is a folder with `conf/` (sizes, dictionaries) and `model/`
(one file for each variable). How its dictionaries cut text is in `lac/dictionaries.py`; network, decoder and batches
are those of the project's taggers, so a release can be trained on (`python -m lac.train --init_from lac`) and exported
(`lac.export`) like one of them.

Beside this file: `interface.py` (the class of LAC 2.1, a user's own words), `rank.py` (weights of words).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

from elmo_chinese.files import cache_folder, lock_file, writing
from elmo_chinese.storage.archive import extract
from elmo_chinese.storage.pretrained import PretrainedError, read_fluid_variable
from elmo_chinese.text.reading import InputError

import numpy as np

from lac import model as tagging
from lac.dictionaries import read_release
from lac.model import Model, decoder
from lac.network import Tagger
from lac.release.rank import Ranker

PACKAGE = "LAC==2.1.2"
MODES = ("lac", "seg", "rank")
# The files of a model's `model/`.
PARTS = ("w_0", "b_0")
TAGGER_VARIABLES = ["word_emb", "crfw", "fc_4.w_0", "fc_4.b_0"]
TAGGER_VARIABLES += [f"{name}_{n}.{part}" for name in ("fc", "gru") for n in range(4) for part in PARTS]
RANKER_VARIABLES = ["word_emb", "embedding_1.w_0", "fc_2.w_0", "fc_2.b_0", "fc_3.w_0", "fc_3.b_0"]
RANKER_VARIABLES += [f"{name}_{n}.{part}" for name in ("fc", "lstm") for n in range(2) for part in PARTS]


# --- getting it ---


def models_folder() -> Path:
    """Return where the unpacked models are kept."""
    return cache_folder() / PACKAGE.replace("==", "-")


def fetch(source: Optional[str] = None) -> Path:
    """Return the folder with `lac_model`, `seg_model`, `rank_model`, after getting and unpacking it if need be.

    Args:
        source: the package's file or folder; None: the cache, else pip.

    Raises:
        InputError: it cannot be had, or it is not that package.
    """
    if source and Path(source).is_dir():
        return _with_models(Path(source), source)
    if not source and models_folder().is_dir():
        return models_folder()
    target = models_folder()
    with lock_file(target.with_name(target.name + ".lock")), tempfile.TemporaryDirectory() as folder:
        if not source and target.is_dir():  # another process was quicker
            return target
        archive = Path(source) if source else _download(folder)
        unpacked = Path(folder, "unpacked")
        extract(archive, unpacked, str(archive.name), lambda name: "_model/" in name)
        models = _with_models(unpacked, str(archive))
        with writing(target, replace_folder=True) as beside:
            for mode in MODES:
                shutil.copytree(models / f"{mode}_model", beside / f"{mode}_model")
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
        lines = [line.strip() for line in done.stdout.strip().splitlines()] or ["no output"]
        # The last ones only say that something went wrong.
        why = next((line for line in lines if line.startswith("ERROR:") or "failed:" in line), lines[-1])
        raise InputError(f"pip could not get {PACKAGE}: {why}; give its file: python -m lac.release LAC-2.1.2.tar.gz")
    return found[0]


def _with_models(folder: Path, name: str) -> Path:
    for found in sorted({path.parent for path in [folder / "lac_model", *folder.rglob("lac_model")]}):
        missing = [f"{mode}_model" for mode in MODES if not (found / f"{mode}_model" / "conf").is_dir()]
        if not missing:
            return found
    raise InputError(f"{name}: not the package {PACKAGE}: no folder in it has {', '.join(f'{m}_model' for m in MODES)}")


# --- loading ---


def is_release(path: Union[str, Path]) -> bool:
    """Say whether a folder is one of the released models, or holds them."""
    return (Path(path) / "conf" / "args.ini").is_file() or (Path(path) / "lac_model").is_dir()


def named(name: str) -> Optional[Tuple[Optional[str], str]]:
    """Return path and mode, for `load`, of the released model that a user names: lac, seg, or its folder.

    None: the name is that of another model's folder.
    """
    if name in ("lac", "seg"):
        return None, name
    if is_release(name):
        return name, "lac"
    return None


def load_any(name: str) -> Model:
    """Return a model by its name: a released one, or one of this project (`lac.model.load`)."""
    released = named(name)
    return load(*released) if released else tagging.load(name)


def load(path: Optional[Union[str, Path]] = None, mode: str = "lac", encoder=None, **options) -> Model:
    """Return a released model, for mode "rank" the one of mode "lac".

    Args:
        path: its folder, or the folder with `lac_model`, `seg_model` and `rank_model`; None: `fetch` it.
        mode: "lac", "seg" or "rank".
        encoder, options: of `Tagger`, see `make_tagger`.

    Raises:
        InputError, PretrainedError: a file is missing, truncated, or does not fit the others.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    root, name = Path(path) if path else fetch(), "seg_model" if mode == "seg" else "lac_model"
    folder = root / name if (root / name).is_dir() else root
    text = read_release(folder / "conf")
    tagger = make_tagger(folder, text.size, len(text.tags), encoder, **options)
    return Model(decoder(tagger), text, None, tagger)


def load_ranker(path: Optional[Union[str, Path]] = None) -> Ranker:
    """Return what gives the words of mode "rank" their weights.

    Raises:
        InputError, PretrainedError: as `load`.
    """
    root = Path(path) if path else fetch()
    if not (root / "rank_model").is_dir():
        raise InputError(f"{root}: mode rank wants the folder that has lac_model and rank_model in it")
    return Ranker(_variables(root / "rank_model" / "model", RANKER_VARIABLES))


def make_tagger(folder: Path, num_words: int, num_tags: int, encoder=None, **options) -> Tagger:
    """Return the network of a released model, filled; the sizes come from the files.

    Args:
        num_words, num_tags: of its dictionaries, to be compared with the files.
        encoder, options: of `Tagger`. An encoder's columns of the first weights are zero, so that the answers are at
            first the same as without it.
    """
    variables = _variables(folder / "model", TAGGER_VARIABLES)
    (words, embed), tags = variables["word_emb"].shape, variables["crfw"].shape[1]
    hidden = variables["gru_0.w_0"].shape[0]
    for what, found, expected in (("tokens", num_words, words), ("tags", num_tags, tags)):
        if found != expected:
            raise PretrainedError(f"{folder}: its dictionary has {found} {what}, its network {expected}")
    tagger = Tagger(words, tags, embed, hidden, 2, encoder=encoder, **options)
    extra = np.zeros((encoder.embedding_dim if encoder else 0, 3 * hidden), np.float32)
    values = [(tagger.word_embedding, variables["word_emb"]), (tagger.crfw, variables["crfw"])]
    values += [(tagger.output_w, variables["fc_4.w_0"]), (tagger.output_b, variables["fc_4.b_0"].ravel())]
    grus = [gru for block in tagger.blocks for gru in (block.forward_gru, block.backward_gru)]
    for number, gru in enumerate(grus):
        input_w, recurrent = variables[f"fc_{number}.w_0"], variables[f"gru_{number}.w_0"].ravel()
        values += [
            (gru.input_w, np.concatenate([extra, input_w]) if number < 2 else input_w),
            (gru.input_b, (variables[f"fc_{number}.b_0"] + variables[f"gru_{number}.b_0"]).ravel()),
            (gru.gate_w, recurrent[: 2 * hidden * hidden].reshape(hidden, 2 * hidden)),
            (gru.candidate_w, recurrent[2 * hidden * hidden :].reshape(hidden, hidden)),
        ]
    for parameter, array in values:
        if list(array.shape) != parameter.shape:
            raise PretrainedError(f"{folder}: expected shape {list(parameter.shape)}, found {list(array.shape)}")
        parameter.set_value(array.astype(np.float32))
    tagger.eval()
    return tagger


def _variables(files: Path, names: List[str]) -> Dict[str, np.ndarray]:
    missing = [name for name in names if not (files / name).is_file()]
    if missing:
        raise PretrainedError(f"{files}: missing {', '.join(missing)}; it is not a released model, or not all of it")
    return {name: read_fluid_variable(files / name) for name in names}
