"""The frozen biLM of a task: which one flags name, the layers of all texts, and what a model's folder holds of it."""

import argparse
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from elmo_chinese.command import OptionError
from elmo_chinese.console import show_progress
from elmo_chinese.files import CheckpointError
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.storage.pretrained import bilm_numbers
from elmo_chinese.text.vocabulary import Vocabulary, unknown_share, vocabulary_from
from elmo_chinese.training.batches import batches_by_length, pad
from elmo_chinese.training.session import wait_for_all

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

# Words of a batch, padding included, and its sentences: what bounds memory.
MAX_TOKENS, MAX_SENTENCES = 4096, 128


class LayerCache:
    """Keeps them in memory, or in a file of which the system holds in memory what fits there.

    `[words, layers, 2·embed]`. The processes of a machine share the file and the work of filling it. Its name is
    removed as soon as all have opened it, so that it is gone when they end, however they end.

    Args:
        encoder: the biLM, a `bilm.ElmoEncoder`.
        texts: the sentences of each text, each as the biLM's word ids, int64 `[words]`. A sentence is read by itself.
        path: the file; its folder must be there. None: in the memory of this process, which does all the work.
        dtype: "float32" or "float16".

    Raises:
        CheckpointError: the file cannot be written; the message says how large it would be.
    """

    def __init__(
        self,
        encoder: nn.Layer,
        texts: Sequence[Sequence[np.ndarray]],
        path: Optional[Path] = None,
        dtype: str = "float32",
    ):
        sentences = [ids for text in texts for ids in text]
        self.lengths = np.array([sum(map(len, text)) for text in texts], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        shape = (int(self.lengths.sum()), encoder.config["num_layers"] + 1, encoder.embedding_dim)
        if path is None:
            self.array = np.zeros(shape, dtype)
            self._fill(encoder, sentences, 0, 1)
            return
        if dist.get_rank() == 0:
            _reserve(path, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        wait_for_all()
        self.array = np.memmap(path, dtype=dtype, mode="r+", shape=shape)
        wait_for_all()
        if dist.get_rank() == 0 and os.name != "nt":  # Windows keeps the name of an open file
            path.unlink()
        self._fill(encoder, sentences, dist.get_rank(), dist.get_world_size())
        wait_for_all()

    @paddle.no_grad()
    def _fill(self, encoder: nn.Layer, sentences: List[np.ndarray], rank: int, world_size: int) -> None:
        lengths = np.array([len(ids) for ids in sentences], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        batches = list(batches_by_length(lengths, MAX_TOKENS, MAX_SENTENCES))
        for done, batch in enumerate(batches[rank::world_size]):
            ids = paddle.to_tensor(pad([sentences[number] for number in batch]))
            layers = encoder.layers(ids, paddle.to_tensor(lengths[batch])).numpy().transpose([1, 2, 0, 3])
            for number, sentence in zip(batch, layers):
                self.array[starts[number] : starts[number] + lengths[number]] = sentence[: lengths[number]]
            show_progress(done, len(batches), "ELMo layers")

    def __call__(self, batch: Sequence[int], width: Optional[int] = None) -> paddle.Tensor:
        """Return the layers of texts, padded: float32 `[layers, batch, width, 2·embed]`."""
        places = [slice(self.starts[number], self.starts[number] + self.lengths[number]) for number in batch]
        rows = pad([self.array[place] for place in places], width)
        return paddle.to_tensor(np.ascontiguousarray(rows.transpose([2, 0, 1, 3]), dtype=np.float32))


def _reserve(path: Path, size: int) -> None:
    # A full disk must show here: later it would end the process without a word.
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        raise CheckpointError(
            f"cannot keep {size / 2**30:.2f} GB of ELMo layers in {path}: {error.strerror}; "
            "--elmo_cache float16 takes half, off takes none"
        )


def mix_figures(encoder: Optional[nn.Layer]) -> Dict[str, float]:
    """Return gamma and the weights of the ELMo layers, nothing without ELMo."""
    if encoder is None:
        return {}
    mix = encoder.mixes[0]
    weights = nn.functional.softmax(mix.ELMo_w).tolist()
    return {"gamma": float(mix.ELMo_gamma.numpy()[0]), **{f"mix_{n}": weight for n, weight in enumerate(weights)}}


# --- from flags and folders ---


def load_elmo(options: argparse.Namespace, load_encoder: Callable, **more) -> Tuple[Optional[nn.Layer], Any]:
    """Return encoder and vocabulary of the pretrained biLM that the flags name, None and None if there is none.

    Args:
        load_encoder: `bilm.load_encoder`. more: arguments for it, besides what flags say.

    Raises:
        OptionError: there is no vocabulary, or another than the biLM was trained with.
    """
    path = options.pretrain_elmo_model_path
    if not path:
        for name in ("elmo_dict_dir", "elmo_boundaries", "elmo_legacy"):
            if getattr(options, name):
                raise OptionError(f"--{name} says how a biLM is read, but --pretrain_elmo_model_path names none")
        return None, None
    vocabulary = Vocabulary(options.elmo_dict_dir) if options.elmo_dict_dir else None
    ends = dict(start=vocabulary.start, end=vocabulary.end) if vocabulary else {}
    how = dict(boundaries=options.elmo_boundaries, legacy=options.elmo_legacy, l2=options.elmo_l2_coef)
    encoder, own = load_encoder(path, **how, **ends, **more)
    if vocabulary is None and own is None:
        raise OptionError(f"{path} has no vocabulary in it: --elmo_dict_dir must name the one it was trained with")
    if vocabulary and own and vocabulary.sha256 != own.sha256:
        raise OptionError(f"{options.elmo_dict_dir} is not the vocabulary of {path}; leave --elmo_dict_dir out")
    vocabulary = vocabulary or own
    if vocabulary.size != encoder.config["vocab_size"]:
        raise OptionError(
            f"{options.elmo_dict_dir} has {vocabulary.size} words, but {path} was trained with "
            f"{encoder.config['vocab_size']}"
        )
    return encoder, vocabulary


def unknown_lines(ids: Iterable[np.ndarray], vocabulary: Optional[Vocabulary], cut_by: str) -> List[str]:
    """Return a line on the words of the training text that the biLM does not know; none without ELMo.

    Args:
        ids: of the biLM, int64 `[words]` each. vocabulary: of the biLM.
        cut_by: what `preprocess.py sentences` needs to cut a biLM's text as this text is.
    """
    if vocabulary is None:
        return []
    flat = np.concatenate([np.zeros(0, np.int64), *ids])
    advice = f"a biLM on text that is cut like this gains more: preprocess.py sentences {cut_by}"
    return ["unknown     " + unknown_share(int((flat == vocabulary.unknown).sum()), len(flat), advice)]


def encoder_info(encoder: Optional[nn.Layer]) -> Optional[Dict[str, Any]]:
    """Return the arguments that make an `ElmoEncoder` again, None for none; "elmo" in `checkpoint.json`."""
    if encoder is None:
        return None
    names = ("boundaries", "start", "end", "legacy", "layer_norm")
    return {**encoder.config, **{name: getattr(encoder, name) for name in names}}


def elmo_state(vocabulary: Optional[Vocabulary]) -> Dict[str, np.ndarray]:
    """Return what `state.npz` holds of the biLM: its vocabulary, if there is one."""
    return {"elmo_vocabulary": np.array(vocabulary.text)} if vocabulary else {}


def elmo_vocabulary_of(found: Checkpoint) -> Optional[Vocabulary]:
    """Return the vocabulary of the biLM, None without ELMo; what is wrong with it is a `KeyError` or `ValueError`."""
    if found.info["elmo"] is None:
        return None
    return vocabulary_from(str(found.state["elmo_vocabulary"]).split("\n")[:-1])


def check_sizes(found: Checkpoint, sizes: List[Any], numbers: int, elmo_vocabulary: Optional[Vocabulary]) -> None:
    """Raise `ValueError` if a checkpoint's sizes are not those of its parts; no memory is set aside for them before.

    Args:
        sizes: of the task's own network, which must be whole and above 0.
        numbers: how many that network has at least.
    """
    elmo, there = found.info["elmo"], sum(array.size for array in found.model.values())
    if elmo_vocabulary:
        of_elmo = [elmo[name] for name in ("vocab_size", "embed_size", "hidden_size", "num_layers")]
        sizes, numbers = [*sizes, *of_elmo], numbers + bilm_numbers(*of_elmo)
    if not all(type(size) is int and size > 0 for size in sizes) or numbers > there:
        raise ValueError(
            f"{found.info['model']} and {elmo} do not fit the {there:,} numbers of {checkpoint.MODEL_FILE}"
        )
    if elmo_vocabulary and elmo_vocabulary.size != elmo["vocab_size"]:
        raise ValueError(f"{elmo} does not fit a vocabulary of {elmo_vocabulary.size} words")


def fill(network: nn.Layer, found: Checkpoint) -> None:
    """Give a network the parameters of a checkpoint, and set it to evaluation.

    Raises:
        CheckpointError: they are not its own.
    """
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    contents.check_arrays(shapes, found.model, found.path / checkpoint.MODEL_FILE)
    network.set_state_dict(found.model)
    network.eval()
