"""Pretrained biLMs: what is read from a folder or archive, how it gets into a network, and how an encoder is saved.

Folders are those of Fluid (`fluid.py`), checkpoints of a language model or of a task that has one, and saved encoders:

    model.pdparams     parameters under the original's names, without optimizer and softmax
    vocabulary.txt     the words that the ids mean
    vocabulary.segmenter.json  how its text was cut, if that is known
    checkpoint.json    {"model": sizes, "encoder": arguments of `ElmoEncoder`, "card": what is told of the model}
    SHA256SUMS         checksums of the files above

Each may be packed as a `.tar.gz`, or far away (`archive.py`). Nothing in them is ever executed.
"""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from elmo_chinese.console import say
from elmo_chinese.files import SUMS_FILE, CheckpointError, damage, write_sums, writing
from elmo_chinese.require_paddle import paddle
from elmo_chinese.storage.archive import local_folder
from elmo_chinese.storage.contents import (
    INFO_FILE,
    MODEL_FILE,
    STATE_FILE,
    VOCABULARY_FILE,
    kind_of,
    read_arrays,
    read_npz,
    verify,
)
from elmo_chinese.storage.fluid import PretrainedError, fluid_shape, read_fluid_variable
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import Vocabulary, note_path, vocabulary_from

import numpy as np
from paddle import nn

PathLike = Union[str, Path]
# The released archive has no softmax; a language model has no mix for a task.
WORD_ROWS = ("embedding_para", "softmax_weight", "softmax_bias")  # one row a word
MAY_BE_MISSING = ("softmax_", "ELMo_")
# What a model may say of its encoder besides the sizes.
OPTIONS = dict(
    num_mixes=int, dropout=float, layer_norm=bool, boundaries=bool, start=int, end=int, l2=float, legacy=bool
)
SIZES = ("vocab_size", "embed_size", "hidden_size", "num_layers")


class PretrainedInfo(NamedTuple):
    """What a pretrained model says of itself.

    Attributes:
        sizes: arguments of `BiLSTM`. options: further arguments of `ElmoEncoder`, where the model knows them.
        vocabulary: None where it has none (Fluid folders).
    """

    sizes: Dict[str, Any]
    options: Dict[str, Any]
    vocabulary: Optional[Vocabulary]


def _local_folder(path: Union[str, Path]) -> Path:
    """Return the folder itself, or that of an unpacked archive."""
    try:
        return local_folder(path)
    except InputError as error:
        raise PretrainedError(str(error))


def pretrained_info(path: PathLike, vocab_path: Optional[PathLike] = None) -> PretrainedInfo:
    """Return sizes, settings and vocabulary of the biLM in a folder or archive; no parameters are read.

    Args:
        vocab_path: the vocabulary's file, for a model without one.

    Raises:
        PretrainedError: no model, a damaged one, or a vocabulary that is not the model's.
    """
    folder = _local_folder(path)
    info = (
        _own_info(folder) if (folder / MODEL_FILE).is_file() else PretrainedInfo(_fluid_sizes(folder, path), {}, None)
    )
    if vocab_path is None and info.vocabulary is None and (folder / VOCABULARY_FILE).is_file():
        vocab_path = folder / VOCABULARY_FILE  # elmo-publish puts it beside Fluid's variables
    if vocab_path is None:
        return info
    given = Vocabulary(vocab_path)
    if given.size != info.sizes["vocab_size"]:
        raise PretrainedError(
            f"{vocab_path} has {given.size} words, but {path} was trained with {info.sizes['vocab_size']}; "
            "give the vocabulary it was trained with"
        )
    if info.vocabulary and info.vocabulary.sha256 != given.sha256:
        raise PretrainedError(f"{vocab_path} is not the vocabulary of {path}, which has its own; leave it out")
    return info._replace(vocabulary=given)


def _fluid_sizes(folder: Path, path: PathLike) -> Dict[str, int]:
    shapes = []
    for name in ("embedding_para", "lstmp_0.w_1"):
        if not (folder / name).is_file():
            raise PretrainedError(f"{path}: no {name} in it, so it is neither a Fluid folder nor a checkpoint")
        shapes.append(fluid_shape(folder / name))
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1] or 0 in sum(shapes, []):
        raise PretrainedError(
            f"{path}: embedding_para {shapes[0]} and lstmp_0.w_1 {shapes[1]} are not [words, embed] and [hidden, embed]"
        )
    (vocab_size, embed_size), (hidden_size, _) = shapes
    num_layers = len(list(folder.glob("fw_layer[0-9]*_gate_w")))
    if not num_layers:
        raise PretrainedError(f"{path}: no fw_layer1_gate_w in it")
    return dict(vocab_size=vocab_size, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers)


def bilm_numbers(vocab_size: int, embed_size: int, hidden_size: int, num_layers: int) -> int:
    """Return how many numbers a biLM of these sizes has, without its softmax."""
    return vocab_size * embed_size + 2 * num_layers * hidden_size * (9 * embed_size + 4)


def _own_info(folder: Path) -> PretrainedInfo:
    """Return what `checkpoint.json` says of the network, if it fits the size of the parameters, and the vocabulary."""
    try:
        verify(folder, (MODEL_FILE, VOCABULARY_FILE, INFO_FILE))
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if "elmo" in info:  # of a task
            said, vocabulary = info["elmo"], _vocabulary_of_task(folder)
            if said is None:
                raise PretrainedError(f"{folder} is {kind_of(info)} that was trained without ELMo")
        else:
            said, vocabulary = {**info["model"], **info.get("encoder", {})}, Vocabulary(folder / VOCABULARY_FILE)
        options = {name: said[name] for name in OPTIONS if name in said}
        sizes = {name: said[name] for name in said if name not in options}
        whole, clips = [sizes[name] for name in SIZES], [sizes[name] for name in ("cell_clip", "proj_clip")]
        if len(sizes) != 6 or not all(type(size) is int and size > 0 for size in whole):
            raise ValueError(f"expected whole sizes, found {sizes}")
        if not all(type(clip) in (int, float) and clip > 0 for clip in clips):
            raise ValueError(f"expected clips above 0, found {sizes}")
        wrong = [name for name in options if type(options[name]) not in (OPTIONS[name], int)]
        if wrong or not 0 < options.get("num_mixes", 1) <= 1000:
            raise ValueError(f"expected settings of an encoder, found {options}")
    except (InputError, CheckpointError, PretrainedError) as error:
        raise PretrainedError(str(error))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PretrainedError(f"{folder / INFO_FILE}: not that of a language model ({error!r})")
    if sizes["vocab_size"] != vocabulary.size or 4 * bilm_numbers(*whole) > os.path.getsize(folder / MODEL_FILE):
        raise PretrainedError(
            f"{folder / INFO_FILE}: {sizes} does not fit {VOCABULARY_FILE} with {vocabulary.size} words "
            f"and {MODEL_FILE} with {os.path.getsize(folder / MODEL_FILE):,} bytes"
        )
    return PretrainedInfo(sizes, options, vocabulary)


def _vocabulary_of_task(folder: Path) -> Vocabulary:
    """Return the biLM's vocabulary, which a task keeps beside its own."""
    verify(folder, [STATE_FILE])
    return vocabulary_from(str(read_npz(folder / STATE_FILE)["elmo_vocabulary"]).split("\n")[:-1])


def _own_names(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Give the arrays of one of our checkpoints the names of the original."""
    if not any(name.startswith("lstm.") for name in arrays):  # of a task, whose encoder is a part, or named already
        start = len("encoder.")
        arrays = {name[start:]: array for name, array in arrays.items() if name.startswith("encoder.")} or arrays
    count = 1 + max((int(name.split(".")[2]) for name in arrays if name.startswith("lstm.forward_layers.")), default=-1)
    named = {}
    for name, array in arrays.items():
        part = name.split(".")
        if part[:2] == ["lstm", "embedding"]:
            named["embedding_para"] = array
        elif part[0] == "lstm":
            layer, backward = int(part[2]), part[1] == "backward_layers"
            number = layer + count if backward else layer
            gate = f"{'bw' if backward else 'fw'}_layer{layer + 1}_gate_w"
            rest = {"recurrent_w": "w_0", "projection_w": "w_1", "bias": "b_0"}
            named[gate if part[3] == "gate_w" else f"lstmp_{number}.{rest[part[3]]}"] = array
        elif part[0] == "mixes":
            named[part[2] + (f"_{int(part[1]) + 1}" if part[1] != "0" else "")] = array
        else:
            named[name] = array
    return named


def read_pretrained(path: Union[str, Path], wanted: List[str]) -> Tuple[Dict[str, np.ndarray], List[str]]:
    """Return the wanted arrays by the original's names, and the names of what else is there."""
    folder = _local_folder(path)
    if (folder / MODEL_FILE).is_file():
        try:
            verify(folder, [MODEL_FILE])
            arrays = _own_names(read_arrays(folder / MODEL_FILE))
        except CheckpointError as error:
            raise PretrainedError(str(error))
        except (KeyError, IndexError, ValueError):
            raise PretrainedError(f"{folder / MODEL_FILE}: the names in it are not those of a biLM")
        found = {name: arrays[name] for name in wanted if name in arrays}
        return found, sorted(set(arrays) - set(found))
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    found = {name: read_fluid_variable(folder / name) for name in wanted if name in files}
    return found, [name for name in files if name not in found]


def bilm_parts(layer: nn.Layer, path: PathLike) -> Dict[str, paddle.Tensor]:
    """Return the parameters of the biLM inside `layer` by the original's names; empty if there is none.

    Raises:
        PretrainedError: `layer` is none that can be filled from `path`, or holds several biLMs.
    """
    if isinstance(layer, paddle.static.Program) or not paddle.in_dynamic_mode():
        raise PretrainedError(
            f"a Program of Paddle Fluid is not filled from {path} any more; leave out paddle.enable_static(). "
            "The original's three lines are now:\n"
            "  network = Network()  # a paddle.nn.Layer of yours\n"
            "  init_pretraining_params(None, path, network)  # the encoder is network.elmo\n"
            "  elmo_embedding = elmo_encoder(word_ids, lengths=lengths)  # in Network.forward"
        )
    if not isinstance(layer, nn.Layer):
        raise PretrainedError(f"a paddle.nn.Layer is filled from {path}, got {type(layer).__name__}")
    parameters: Dict[str, paddle.Tensor] = {}
    for part in layer.sublayers(include_self=True):
        if hasattr(part, "fluid_parameters"):
            for name, parameter in part.fluid_parameters().items():
                if parameters.setdefault(name, parameter) is not parameter:
                    raise PretrainedError(f"{type(layer).__name__} holds more than one biLM; fill each by itself")
    return parameters


def rows_by_name(path: PathLike, vocabulary: Vocabulary, vocab_path: Optional[PathLike] = None) -> Optional[np.ndarray]:
    """Say which rows of a pretrained model belong to the words of another vocabulary.

    Args:
        path: the pretrained model. vocab_path: its vocabulary file, which Fluid folders lack.
        vocabulary: the words that are wanted.

    Returns:
        for each word the row that it has in the model, -1 for a new one, int64 `[words]`; None: row for row the same,
        or the model has no vocabulary.

    Raises:
        PretrainedError: the model cannot be read, or `vocab_path` is not its vocabulary.
    """
    own = pretrained_info(path, vocab_path).vocabulary
    if own is None:
        say(
            f"{path} has no vocabulary in it; its rows are taken for the words of yours, line by line. If it was "
            "trained with another, give that with --pretraining_vocab_path"
        )
        return None
    if own.sha256 == vocabulary.sha256:
        return None
    rows = np.array([own.ids.get(word, -1) for word in vocabulary.words], dtype=np.int64)
    new, gone = int((rows < 0).sum()), own.size - int((rows >= 0).sum())
    first = ", ".join(word for word, row in zip(vocabulary.words, rows) if row < 0 and new) or "none"
    say(
        f"words by name: {vocabulary.size - new:,} of {vocabulary.size:,} keep the rows that they have in {path}, "
        f"{new:,} new ones start fresh ({first[:40]}), {gone:,} of its words are not in this vocabulary"
    )
    return rows


def load_pretrained(layer: nn.Layer, path: PathLike, rows: Optional[np.ndarray] = None) -> None:
    """Fill the biLM parameters inside `layer` from `path`; see `bilm.init_pretraining_params`.

    Args:
        rows: of the file for each word of the layer, as `rows_by_name` returns them; the words without one keep their
            initial embedding and softmax rows.
    """
    parameters = bilm_parts(layer, path)
    if not parameters:
        raise PretrainedError(f"{type(layer).__name__} holds no biLM, so there is nothing to fill from {path}")
    arrays, unexpected = read_pretrained(path, list(parameters))
    if not arrays:
        raise PretrainedError(
            f"{path}: nothing usable in it; expected files such as {', '.join(list(parameters)[:3])}, "
            f"or {MODEL_FILE}; found {', '.join(unexpected[:5]) or 'an empty folder'}"
        )
    known = None if rows is None else np.flatnonzero(rows >= 0)
    for name in WORD_ROWS if rows is not None else ():
        if (
            name in arrays
            and len(arrays[name]) > rows.max()
            and arrays[name].shape[1:] == (*parameters[name].shape[1:],)
        ):
            taken = parameters[name].numpy()
            taken[known] = arrays[name][rows[known]]
            arrays[name] = taken
    wrong = [
        f"{path}/{name}: expected shape {list(parameters[name].shape)}, found {list(array.shape)}"
        for name, array in arrays.items()
        if list(array.shape) != parameters[name].shape
    ]
    if wrong:
        raise PretrainedError(
            "wrong sizes (do --embed_size, --hidden_size and the vocabulary fit?):\n  " + "\n  ".join(wrong)
        )
    missing = [name for name in parameters if name not in arrays]
    lacking = [name for name in missing if not name.startswith(MAY_BE_MISSING)]
    if lacking:
        raise PretrainedError(f"{path}: missing {', '.join(lacking)} (do the layers fit --num_layers?)")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise PretrainedError(f"{path}/{name}: not all of it is finite numbers; the file is damaged, get it again")
    for name, array in arrays.items():
        parameters[name].set_value(paddle.to_tensor(array.astype(np.float32)).astype(parameters[name].dtype))
    say(_report(path, arrays, missing, unexpected))


def _report(path, arrays, missing, unexpected) -> str:
    line = f"loaded {len(arrays)} parameters from {path}"
    if missing:
        line += f"; not in it, so at their starting values: {', '.join(missing)}"
    unexpected = [name for name in unexpected if name != VOCABULARY_FILE]
    if unexpected:
        shown = ", ".join(unexpected[:8]) + (" …" if len(unexpected) > 8 else "")
        line += f"; not needed: {len(unexpected)} others ({shown})"
    return line


# --- writing ---


def save_pretrained(
    folder: PathLike,
    parameters: Dict[str, Any],
    sizes: Dict[str, Any],
    options: Dict[str, Any],
    vocabulary: Vocabulary,
    card: Optional[Dict[str, str]] = None,
) -> None:
    """Write the folder of a saved encoder, whole or not at all; the same content gives the same bytes.

    Args:
        folder: made here; a saved encoder in it is replaced, anything else stays.
        parameters: by the original's names. sizes, options: see `PretrainedInfo`.
        card: what is told of the model.

    Raises:
        PretrainedError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    summed = [MODEL_FILE, VOCABULARY_FILE, INFO_FILE]
    note_name = note_path(folder / VOCABULARY_FILE).name
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    replaced = inside - {note_name} == {*summed, SUMS_FILE} and not damage(folder, [*summed, *(inside & {note_name})])
    if os.path.lexists(folder) and not replaced:
        raise PretrainedError(f"{folder} is there, and is no saved encoder that could be replaced; choose another name")
    info = {"model": sizes, "encoder": options, "card": card or {}}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with writing(folder, replace_folder=replaced) as beside:
            beside.mkdir()
            paddle.save({name: np.array(array) for name, array in parameters.items()}, str(beside / MODEL_FILE))
            (beside / VOCABULARY_FILE).write_bytes(vocabulary.text.encode("utf-8"))
            text = json.dumps(info, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            (beside / INFO_FILE).write_bytes(text.encode("utf-8"))
            if vocabulary.note:
                summed.append(note_name)
                note = json.dumps(vocabulary.note, ensure_ascii=False, sort_keys=True)
                (beside / note_name).write_bytes(note.encode("utf-8"))
            write_sums(beside, summed)
    except OSError as error:
        raise PretrainedError(f"cannot write {folder}: {error.strerror or error}; choose another folder")
