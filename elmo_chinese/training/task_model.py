"""What the folder of a trained task's model holds of its biLM, and how its arrays come back into a network."""

from typing import Any, Dict, List, Optional

from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.storage.pretrained import bilm_numbers
from elmo_chinese.text.vocabulary import Vocabulary, vocabulary_from

import numpy as np
from paddle import nn


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
    checkpoint.check_arrays(shapes, found.model, found.path / checkpoint.MODEL_FILE)
    network.set_state_dict(found.model)
    network.eval()
