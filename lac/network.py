"""The tagger's network: ELMo vectors and word embedding → BiGRU blocks → one number for each tag → CRF.

Inside, tensors are time-major, `[words, batch, size]`, as in `bilm.py`. Sizes, multipliers of the learning
rate and decay are those of Baidu's LAC on Paddle Fluid; its GRU is in `elmo_chinese/network/gru.py`.
"""

import functools
from typing import List, Optional

from elmo_chinese.network import kernels
from elmo_chinese.network.gru import BiGRU, decayed_weight, reverse_places, swapped
from elmo_chinese.network.program import as_it_is, shape

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from bilm import ElmoEncoder, StepRandom
from lac.crf import crf_costs, shifted_ends


class Tagger(nn.Layer):
    """Word ids to a number for each word and tag, and the CRF's weights.

    Args:
        num_words: size of the word embedding's vocabulary.
        num_tags: size of the tag set.
        word_emb_dim: width of the word embedding.
        grnn_hidden_dim: size of a GRU.
        bigru_num: blocks.
        emb_learning_rate, crf_learning_rate: multipliers of the learning rate.
        encoder: an `ElmoEncoder`, None for the tagger without ELMo.

    Attributes:
        config: the sizes, as arguments of this class.
        crfw: the CRF's weights, see `lac/crf.py`.
    """

    def __init__(
        self,
        num_words: int,
        num_tags: int,
        word_emb_dim: int = 128,
        grnn_hidden_dim: int = 256,
        bigru_num: int = 2,
        emb_learning_rate: float = 5.0,
        crf_learning_rate: float = 0.2,
        encoder: Optional[ElmoEncoder] = None,
    ):
        super().__init__()
        self.config = dict(
            num_words=num_words,
            num_tags=num_tags,
            word_emb_dim=word_emb_dim,
            grnn_hidden_dim=grnn_hidden_dim,
            bigru_num=bigru_num,
        )
        uniform = nn.initializer.Uniform(-0.1, 0.1)
        self.word_embedding = self.create_parameter(
            [num_words, word_emb_dim], attr=paddle.ParamAttr(initializer=uniform, learning_rate=emb_learning_rate)
        )
        self.encoder = encoder
        width = word_emb_dim + (encoder.embedding_dim if encoder else 0)
        sizes = [width] + [2 * grnn_hidden_dim] * bigru_num
        self.blocks = nn.LayerList([BiGRU(size, grnn_hidden_dim) for size in sizes[:-1]])
        self.output_w = decayed_weight(self, [sizes[-1], num_tags], decay=1e-4)
        self.output_b = self.create_parameter([num_tags], is_bias=True)
        self.crfw = self.create_parameter(
            [num_tags + 2, num_tags],
            attr=paddle.ParamAttr(initializer=nn.initializer.XavierUniform(), learning_rate=crf_learning_rate),
        )

    def trained_parameters(self):
        """Return the parameters that an optimizer should get: all but those of a frozen biLM."""
        return [parameter for parameter in self.parameters() if not parameter.stop_gradient]

    def forward(
        self,
        word_ids: paddle.Tensor,
        lengths: paddle.Tensor,
        elmo: Optional[paddle.Tensor] = None,
        random: Optional[StepRandom] = None,
    ) -> paddle.Tensor:
        """Return the emissions of the CRF.

        Args:
            word_ids: int64 `[batch, words]`, of the word embedding's vocabulary.
            lengths: int64 `[batch]`, at least 1.
            elmo: with an encoder, its word ids, int64 `[batch, words]`, or what its `layers` returned for them,
                float32 `[layers, batch, words, 2·embed]`.
            random: where the dropout of the ELMo layers comes from in training mode.

        Returns:
            float32 `[batch, words, tags]`; at padding something without a meaning.
        """
        return self._emissions(word_ids, lengths, elmo, random)

    @as_it_is
    def _emissions(self, word_ids, lengths, elmo, random):
        inputs = F.embedding(word_ids.t(), self.word_embedding)
        if self.encoder:
            layers = self.encoder.layers(elmo, lengths) if len(elmo.shape) == 2 else elmo
            inputs = paddle.concat([swapped(self.encoder.mix(layers, random)), inputs], axis=-1)
        reverse = reverse_places(shape(word_ids)[1], lengths)
        for block in self.blocks:
            inputs = block(inputs, reverse)
        return F.linear(inputs, self.output_w, self.output_b).transpose([1, 0, 2])

    def best_tags(self, word_ids: np.ndarray, lengths: np.ndarray, vectors: Optional[np.ndarray] = None) -> np.ndarray:
        """Return the best tags of sentences, in C++ (`cpp/tagging.cc`), without padding or a graph.

        Args:
            word_ids: int64 `[words]`, one sentence after the other. lengths: int64 `[sentences]`, at least 1.
            vectors: with an encoder, its vectors of these words, float32 `[words, encoder.embedding_dim]`.

        Returns:
            int64 `[words]`.
        """
        config, tags = self.config, np.empty_like(word_ids)
        sizes = [len(lengths), config["bigru_num"], config["word_emb_dim"], 0 if vectors is None else vectors.shape[1]]
        sizes += [config["grnn_hidden_dim"], config["num_tags"]]
        kernels.call("tag_sentences", sizes, [], [lengths], [word_ids], [vectors], *self._weights, [tags])
        return tags

    @functools.cached_property
    def _weights(self) -> List[kernels.Fixed]:
        """The parameters in the order in which `tag_sentences` of `cpp/tagging.cc` takes them."""
        grus = [gru for block in self.blocks for gru in (block.forward_gru, block.backward_gru)]
        of_grus = [[getattr(gru, name) for gru in grus] for name in ("input_w", "input_b", "gate_w", "candidate_w")]
        groups = [[self.word_embedding], *of_grus, [self.output_w, self.output_b, self.crfw]]
        return [kernels.Fixed(group) for group in groups]

    def costs(
        self,
        word_ids: paddle.Tensor,
        lengths: paddle.Tensor,
        tags: paddle.Tensor,
        elmo: Optional[paddle.Tensor] = None,
        random: Optional[StepRandom] = None,
    ) -> paddle.Tensor:
        """Return the negative log likelihood of each sentence's tags (int64 `[batch, words]`): `[batch]`."""
        return crf_costs(self(word_ids, lengths, elmo, random), tags, lengths, self.crfw)


class TagDecoder(nn.Layer):
    """Word ids to the best tags, in Paddle operators: what `lac.export` saves.

    Args:
        tagger: the network, which becomes a part of this.
    """

    def __init__(self, tagger: Tagger):
        super().__init__()
        self.tagger = tagger

    def forward(
        self, word_ids: paddle.Tensor, lengths: paddle.Tensor, elmo: Optional[paddle.Tensor] = None
    ) -> paddle.Tensor:
        """Return int64 `[batch, words]`, at padding something without a meaning; arguments as of `Tagger.forward`."""
        crfw = self.tagger.crfw
        emissions = shifted_ends(self.tagger(word_ids, lengths, elmo), lengths, crfw)
        return paddle.text.viterbi_decode(emissions, crfw[2:], lengths, include_bos_eos_tag=False)[1]
