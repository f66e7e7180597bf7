"""The language model in a network of your own: `ElmoEncoder`, word ids in, ELMo vectors out, and how it is loaded.

The formulas are those of Baidu's ELMo for Paddle Fluid; the network is that of Peters et al. 2018, "Deep contextualized
word representations", with a word instead of a character input. `BiLSTM` and `BiLM` are in
`elmo_chinese/network/language_model.py`.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from elmo_chinese.network.language_model import BiLM, BiLSTM
from elmo_chinese.network.lstmp import float32
from elmo_chinese.network.program import as_it_is, in_program, shape
from elmo_chinese.network.step_random import StepRandom, fresh_random
from elmo_chinese.storage.pretrained import (
    PretrainedError,
    bilm_parts,
    load_pretrained,
    pretrained_info,
    save_pretrained,
)
from elmo_chinese.text.batch import Batch, Integers, batch_to_ids, checked_batch
from elmo_chinese.text.segmenter import segmenter_of
from elmo_chinese.text.vocabulary import Vocabulary

import paddle
import paddle.nn.functional as F
from paddle import nn

__all__ = [  # what a type checker takes for the interface
    "Batch",
    "BiLM",
    "BiLSTM",
    "ElmoEncoder",
    "PretrainedError",
    "ScalarMix",
    "StepRandom",
    "Vocabulary",
    "batch_to_ids",
    "elmo_encoder",
    "init_pretraining_params",
    "load_encoder",
    "segmenter_of",
]

PathLike = Union[str, Path]


class ScalarMix(nn.Layer):
    """A trained average of the layers: gamma · Σ softmax(w)_i · layer_i (Peters et al. 2018, equation 1).

    The original adds 1/(number of layers) to every w before the softmax, which changes nothing.

    Args:
        num_layers: how many layers are mixed.
        l2: decay of the weights.
    """

    def __init__(self, num_layers: int, l2: float = 0.001):
        super().__init__()
        zero, one = nn.initializer.Constant(0.0), nn.initializer.Constant(1.0)
        self.ELMo_w = self.create_parameter([num_layers], default_initializer=zero)
        self.ELMo_w.regularizer = paddle.regularizer.L2Decay(l2)
        self.ELMo_gamma = self.create_parameter([1], default_initializer=one)

    def forward(self, layers: List[paddle.Tensor]) -> paddle.Tensor:
        """Return the mix of tensors of one shape; ValueError if they are not as many as it was made for."""
        if len(layers) != self.ELMo_w.shape[0]:
            raise ValueError(f"this mixes {self.ELMo_w.shape[0]} layers, but got {len(layers)}")
        gamma, weights = float32(self.ELMo_gamma), F.softmax(float32(self.ELMo_w))
        mixed = gamma * paddle.add_n([layer * weight for layer, weight in zip(layers, weights)])
        return mixed if self.ELMo_gamma.dtype == paddle.float32 else mixed.astype(self.ELMo_gamma.dtype)


class ElmoEncoder(nn.Layer):
    """Word ids to ELMo vectors: a pretrained `BiLSTM`, whose layers are mixed by trained weights.

    A sentence gets the same vectors alone or in any batch, order and padding: states start at zero in every call,
    padding is known from the lengths alone, and the backward LSTM starts at the last word. The biLM is float32; the
    vectors have the type of the mix's parameters: Paddle's default, or what `to(dtype=…)` of the network set.

    Args:
        vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip: see `BiLSTM`.
        num_mixes: several mixes, each with its own weights, from one pass.
        dropout: share of the LSTM layers' numbers dropped before the mix, in training mode only.
        layer_norm: normalise each layer's vectors to mean 0 and variance 1 before the mix.
        finetune: train the biLM too; otherwise it is frozen and runs without gradients.
        boundaries: run the LSTMs over `<S> … </S>`, as in pretraining, and leave their vectors out again.
        start, end: ids of `<S>` and `</S>`.
        l2: decay of the mix weights.
        legacy: repeat two faults of the original, to use a task model trained with it: every LSTM layer
            reads the embeddings instead of the layer below, and the backward vectors stay in reading order,
            so that word t is joined with the vector of word n-1-t.
        autograd: with finetune, leave the LSTMs' backward pass to Paddle's own autograd, some three times as slow.
            Only so may it run several times (`retain_graph=True`) or be asked for the gradients of some tensors
            (`paddle.grad`); otherwise that is an error, as Paddle runs a backward pass of our own (`PyLayer`) once.
            Second derivatives are not to be had: Paddle's operators have none.

    Attributes:
        embedding_dim: width of the vectors, 2 · embed_size.
        config: the biLM's sizes.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_size: int = 512,
        hidden_size: int = 4096,
        num_layers: int = 2,
        cell_clip: float = 3.0,
        proj_clip: float = 3.0,
        num_mixes: int = 1,
        dropout: float = 0.5,
        layer_norm: bool = False,
        finetune: bool = False,
        boundaries: bool = False,
        start: int = 0,
        end: int = 1,
        l2: float = 0.001,
        legacy: bool = False,
        autograd: bool = False,
    ):
        super().__init__()
        if not (0 <= dropout < 1 and l2 >= 0 and num_mixes >= 1):
            wanted = "dropout must be at least 0 and below 1, l2 at least 0, num_mixes at least 1"
            raise ValueError(f"{wanted}; got {dropout}, {l2} and {num_mixes}")
        self.lstm = BiLSTM(vocab_size, embed_size, hidden_size, num_layers, cell_clip, proj_clip)
        self.lstm.autograd = autograd
        for parameter in self.lstm.parameters():
            parameter.stop_gradient = not finetune
        self.mixes = nn.LayerList([ScalarMix(num_layers + 1, l2) for _ in range(num_mixes)])
        self.config, self.embedding_dim = self.lstm.config, 2 * embed_size
        self.num_mixes, self.dropout, self.layer_norm, self.l2 = num_mixes, dropout, layer_norm, l2
        self._vocabulary: Optional[Vocabulary] = None
        self.boundaries, self.start, self.end, self.legacy = boundaries, start, end, legacy

    def extra_repr(self) -> str:
        """Return the number of words, for `print(network)`."""
        return f"words={self.config['vocab_size']}, embed_size={self.config['embed_size']}"

    @property
    def finetune(self) -> bool:
        """Whether any parameter of the biLM is trained: their `stop_gradient` may be changed at any time."""
        return any(not parameter.stop_gradient for parameter in self.lstm.parameters())

    def fluid_parameters(self) -> Dict[str, paddle.Tensor]:
        """Return the parameters under the names that the original gave them; mixes from the second on with numbers."""
        named = self.lstm.fluid_parameters()
        for number, mix in enumerate(self.mixes):
            end = f"_{number + 1}" if number else ""
            named.update({f"ELMo_w{end}": mix.ELMo_w, f"ELMo_gamma{end}": mix.ELMo_gamma})
        return named

    @as_it_is
    def layers(self, word_ids: Integers, lengths: Optional[Integers] = None) -> paddle.Tensor:
        """Return the word layer and every LSTM layer, forward and backward side by side, before dropout and mix.

        Args:
            word_ids: whole numbers `[batch, words]`: a tensor, a NumPy array or a nested list.
            lengths: whole numbers `[batch]`, words of each sentence; None: all of them.

        Returns:
            float32 `[num_layers + 1, batch, words, embedding_dim]`; zero at padding.

        Raises:
            ValueError: see `checked_batch`.
        """
        word_ids, lengths = checked_batch(word_ids, lengths, self.config["vocab_size"])
        if in_program():  # where gradients are asked for later
            return self._layers_between(word_ids, lengths)
        with paddle.set_grad_enabled(self.finetune and paddle.is_grad_enabled()):
            return self._layers_between(word_ids, lengths)

    def _layers_between(self, word_ids, lengths):
        """Return `layers`, with `<S>` and `</S>` around the sentences for the time being, if that is wanted."""
        if not self.boundaries:
            return self._layers(word_ids, lengths)
        layers = self._layers(self._bounded(word_ids, lengths), lengths + 2)
        return layers[:, :, 1:-1] * self._mask(word_ids, lengths)

    def _mask(self, word_ids, lengths):
        return (paddle.arange(shape(word_ids)[1], dtype="int64") < lengths.unsqueeze(1)).astype("float32").unsqueeze(-1)

    def _bounded(self, word_ids, lengths):
        """Return word_ids with `<S>` before and `</S>` after the last word of each sentence."""
        batch, words = shape(word_ids)
        place = paddle.arange(words + 2, dtype="int64").expand([batch, words + 2])
        edge = paddle.full([batch, 1], self.end, dtype="int64")
        padded = paddle.concat([paddle.full([batch, 1], self.start, dtype="int64"), word_ids, edge], axis=1)
        return paddle.where(place == lengths.unsqueeze(1) + 1, paddle.full_like(padded, self.end), padded)

    def _layers(self, word_ids, lengths):
        batch, words = shape(word_ids)
        place = paddle.arange(words, dtype="int64")
        lengths = lengths.unsqueeze(1)
        # Word t of the sentence is word length-1-t of its reverse, and the other way round; padding stays.
        reverse = paddle.where(place < lengths, lengths - 1 - place, place.expand([batch, words]))
        # Both are gathered into the order of the result: Paddle's transposed views are slow to read.
        row = paddle.arange(batch, dtype="int64").unsqueeze(1)
        in_order, reversed_back = ((places * batch + row).flatten() for places in (place.unsqueeze(0), reverse))

        def gathered(layer, places):
            return paddle.gather(layer.flatten(0, 1), places).reshape([batch, words, layer.shape[-1]])

        both = (word_ids, paddle.take_along_axis(word_ids, reverse, axis=1))
        embedded, outputs, *_ = self.lstm(both, self.lstm.zero_states(batch), from_embeddings=self.legacy)
        ahead, back = zip(*(paddle.unbind(layer, axis=0) for layer in outputs))
        ahead = [gathered(layer, in_order) for layer in (embedded[0], *ahead)]
        back = [gathered(layer, in_order if self.legacy else reversed_back) for layer in back]
        layers = paddle.stack([paddle.concat(pair, axis=2) for pair in zip(ahead, (ahead[0], *back))])
        return layers * self._mask(word_ids, lengths.flatten())

    @as_it_is
    def mix(self, layers: paddle.Tensor, random: Optional[StepRandom] = None):
        """Return the mix of what `layers` returned, `[batch, words, embedding_dim]`; a list if `num_mixes` is above 1.

        Args:
            random: where dropout comes from in training mode; None draws from Paddle's generator.
        """
        parts = list(paddle.unbind(layers, axis=0))
        if self.layer_norm:
            parts = [F.layer_norm(part, self.embedding_dim) for part in parts]
        if self.training and self.dropout and in_program():
            parts[1:] = [F.dropout(part, self.dropout) for part in parts[1:]]
        elif self.training and self.dropout:
            random = random or fresh_random()
            for number in range(1, len(parts)):  # the words themselves are kept whole
                parts[number] = parts[number] * random.keep_factor(number, parts[number].shape, 0, self.dropout)
        mixed = [mix(parts) for mix in self.mixes]
        return mixed if len(mixed) > 1 else mixed[0]

    def forward(self, word_ids: Integers, lengths: Optional[Integers] = None):
        """Return the ELMo vectors of sentences; arguments as for `layers`, result as for `mix`."""
        return self.mix(self.layers(word_ids, lengths))

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that its ids mean; `PretrainedError` where none was there to be loaded."""
        if self._vocabulary is None:
            raise PretrainedError(
                "this encoder came without a vocabulary; give its file: load_encoder(path, vocab_path)"
            )
        return self._vocabulary

    def __dir__(self) -> List[str]:  # paddle.jit.save gets every attribute named here
        return [name for name in super().__dir__() if name != "vocabulary" or self._vocabulary]

    def save_pretrained(self, folder: PathLike) -> None:
        """Save biLM, trained mix, vocabulary and settings, for `from_pretrained` and all else that takes a model.

        Raises:
            PretrainedError: the encoder has no vocabulary, or the folder holds something else or cannot be written.
        """
        names = ("num_mixes", "dropout", "layer_norm", "boundaries", "start", "end", "l2", "legacy")
        options = {name: getattr(self, name) for name in names}
        save_pretrained(folder, self.fluid_parameters(), self.config, options, self.vocabulary)

    @classmethod
    def from_pretrained(cls, path: PathLike, vocab_path: Optional[PathLike] = None, **options: Any) -> "ElmoEncoder":
        """Return the encoder that `load_encoder` returns; its vocabulary is its attribute `vocabulary`."""
        return load_encoder(path, vocab_path, **options)[0]


def load_encoder(
    path: PathLike, vocab_path: Optional[PathLike] = None, **options: Any
) -> Tuple[ElmoEncoder, Union[Vocabulary, Any]]:
    """Return an encoder made and filled from a pretrained model, with sizes as in the files.

    Args:
        path: see `init_pretraining_params`; or what `save_pretrained` wrote, or the folder of a task that was trained
            with ELMo (`lac.train`, `mrc.train`), which bring their trained mix and their settings.
        vocab_path: the vocabulary's file, for models without one (Fluid's).
        options: of `ElmoEncoder`, besides the sizes.

    Returns:
        the encoder, in evaluation mode: without dropout until `train()` of it, or of a layer that it is part of; and
        its `Vocabulary`, None where there is none.

    Raises:
        PretrainedError: see `init_pretraining_params`.
    """
    info = pretrained_info(path, vocab_path)
    if info.vocabulary:
        options = {"start": info.vocabulary.start, "end": info.vocabulary.end, **info.options, **options}
    encoder = ElmoEncoder(**info.sizes, **options)
    load_pretrained(encoder, path)
    encoder._vocabulary = info.vocabulary
    encoder.eval()
    return encoder, info.vocabulary


_default_encoder: Optional[ElmoEncoder] = None


def init_pretraining_params(
    exe: object, pretraining_params_path: PathLike, main_program: Optional[nn.Layer] = None
) -> nn.Layer:
    """Fill the biLM of a network from a pretrained model, or give it one; nothing else of it is touched.

    Args:
        exe: not used any more (the original's executor); None will do.
        pretraining_params_path: a folder of Fluid variables (one file each, original names), a checkpoint of this
            project, or the folder of a run, which means its best one; or a `.tar.gz` of a checkpoint or of Fluid's
            variables, or the http(s) address of such a file. Optimizer state and learning rate in it are left alone.
        main_program: a network. If there is a `BiLM` or an `ElmoEncoder` in it, that is filled. If there is none, an
            encoder with sizes as in the files becomes a part of the network under the name `elmo`, in the network's
            mode, so that `train()`, `eval()`, `parameters()` and `state_dict()` reach it. None: only make an encoder.

    Returns:
        the network, or the encoder where there is none. What was made is also the default of `elmo_encoder`.

    Raises:
        PretrainedError: a name is missing, a shape is wrong, a file is damaged, nothing is usable; the network holds
            several biLMs, has another `elmo` already, or is no layer.
            `softmax_weight` and `softmax_bias` may be missing (they are, in the released archive).
    """
    global _default_encoder
    if main_program is None:
        _default_encoder, _ = load_encoder(pretraining_params_path)
        return _default_encoder
    if bilm_parts(main_program, pretraining_params_path):
        load_pretrained(main_program, pretraining_params_path)
        return main_program
    if hasattr(main_program, "elmo"):
        raise PretrainedError(
            f"{type(main_program).__name__}.elmo is no biLM, but the encoder takes this name; give yours another"
        )
    _default_encoder, _ = load_encoder(pretraining_params_path)
    main_program.elmo = _default_encoder
    if main_program.training:
        _default_encoder.train()
    return main_program


def elmo_encoder(
    word_ids: Integers,
    elmo_l2_coef: Union[float, Integers, None] = None,
    lengths: Optional[Integers] = None,
    encoder: Optional[ElmoEncoder] = None,
) -> paddle.Tensor:
    """Return the ELMo vectors of sentences, float32 `[batch, words, 2·embed]`.

    Args:
        word_ids: whole numbers `[batch, words]`: a tensor, a NumPy array or a nested list.
        elmo_l2_coef: decay of the mix weights from now on; None: as it is, 0.001 unless it was made with another. What
            is no number is taken for the lengths, which stand here in `encoder(word_ids, lengths)`.
        lengths: whole numbers `[batch]`, words of each sentence; None: all of them.
        encoder: None for that of the network whose method calls this; outside of one, for the default one, which
            `init_pretraining_params` made last.

    Raises:
        PretrainedError: no encoder given and none loaded, or the network has several.

    Warns:
        RuntimeWarning: a network in training mode calls this, and the encoder is no part of it.
    """
    if lengths is None and not isinstance(elmo_l2_coef, (int, float, type(None))):
        elmo_l2_coef, lengths = None, elmo_l2_coef
    callers = list(_calling_layers())
    encoder = encoder or _encoder_of(callers) or _default_encoder
    if encoder is None:
        raise PretrainedError("nothing is loaded yet: call init_pretraining_params(None, path) first, or pass encoder=")
    if callers and callers[-1].training and all(layer is not encoder for layer in callers[-1].sublayers()):
        name = type(callers[-1]).__name__
        warnings.warn(
            f"{name} is in training, but the encoder is no part of it: its mix is neither trained nor saved, and is "
            f"without dropout. Make it one: init_pretraining_params(None, path, network), or in {name}.__init__ "
            "self.elmo = init_pretraining_params(None, path)",
            RuntimeWarning,
            stacklevel=2,
        )
    if elmo_l2_coef is not None:
        for mix in encoder.mixes:
            mix.ELMo_w.regularizer = paddle.regularizer.L2Decay(elmo_l2_coef)
    return encoder(word_ids, lengths)


def _calling_layers() -> Iterator[nn.Layer]:
    """Yield the layers whose methods are running, from the innermost on."""
    frame = sys._getframe(2)
    while frame:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Layer):
            yield owner
        frame = frame.f_back


def _encoder_of(layers: Sequence[nn.Layer]) -> Optional[ElmoEncoder]:
    """Return the encoder in the first of the layers that has one; `PretrainedError` if that has several."""
    for layer in layers:
        found = [part for part in layer.sublayers() if isinstance(part, ElmoEncoder)]
        if len(found) > 1:
            raise PretrainedError(
                f"{type(layer).__name__} has {len(found)} encoders; say which: elmo_encoder(…, encoder=)"
            )
        if found:
            return found[0]
    return None
