"""The reader's network: BiDAF (Seo et al. 2017, "Bidirectional attention flow for machine comprehension") of GRUs.

1. Words of question and passages: word embedding, joined by the ELMo vector if there is an encoder.
2. A BiGRU over the question and over each passage, with the same weights. A passage that several questions ask is read
   once.
3. Attention flow: p is a passage word's state, u the question as this word sees it (softmax over the question), h the
   passage as the question sees it (largest similarity of each word, softmax over the passage). Similarity is Seo's
   trilinear one, w_p · p + w_q · q + w_m · (p · q).
4. Two more BiGRUs, one over [p, u, p·u, p·h] and one over what it returns.
5. Where an answer starts is a number for each word from the first of them, where it ends from the second. The softmax
   of each is over all passages of a question together, as Baidu's reader for DuReader has it.

Baidu has a plain dot product, one BiLSTM in step 4 and a pointer network in step 5; Seo's form learns more from 10,000
questions, and two numbers for each word take no steps one after the other.

The size of a passage's array is [questions, documents · words, size]: a question's passages stand one after the other,
each padded to the same number of words.
"""

from typing import NamedTuple, Optional, Tuple

from elmo_chinese.network.gru import BiGRU, reverse_places, swapped
from elmo_chinese.network.program import Size, as_it_is, shape

import paddle
import paddle.nn.functional as F
from paddle import nn

from bilm import ElmoEncoder, StepRandom

# What is added to a logit so that its probability is 0; finite, as a row may have nothing else.
NEVER = -1e9
# Dropout has these streams of a step.
ELMO, INPUT, MATCHED, MODELLED = 1, 2, 3, 4
# What of the biLM is joined to the word embedding.
VECTORS = ("mix", "lookup")


class Batch(NamedTuple):
    """Questions and their passages.

    Attributes:
        questions: word ids, int64 `[questions, words]`. question_lengths: int64 `[questions]`, at least 1.
        passages: word ids, int64 `[passages, words]`. passage_lengths: int64 `[passages]`, at least 1.
        documents: the passages of each question, int64 `[questions, documents]`; where a question has fewer, any.
        there: float32 `[questions, documents]`, 0 where it has fewer.
        question_elmo, passage_elmo: what `ElmoEncoder.layers` returned, float32 `[layers, rows, words, 2·embed]`;
            None without ELMo.
    """

    questions: paddle.Tensor
    question_lengths: paddle.Tensor
    passages: paddle.Tensor
    passage_lengths: paddle.Tensor
    documents: paddle.Tensor
    there: paddle.Tensor
    question_elmo: Optional[paddle.Tensor] = None
    passage_elmo: Optional[paddle.Tensor] = None


class Random(NamedTuple):
    """Where dropout comes from in training mode: a `StepRandom` for the rows of questions, another for passages."""

    questions: Optional[StepRandom]
    passages: Optional[StepRandom]


NO_RANDOM = Random(None, None)


def random_of(seed: int, step: int, first_question: int = 0, first_passage: int = 0) -> Random:
    """Return the random numbers of a step, for a process whose rows start there in the batch."""
    # Questions and passages have every second step, so that they do not share their numbers.
    return Random(StepRandom(seed, 2 * step, first_question), StepRandom(seed, 2 * step + 1, first_passage))


def mask(width: Size, lengths: paddle.Tensor) -> paddle.Tensor:
    """Return float32 `[rows, width]`, 1 at words and 0 at padding."""
    return (paddle.arange(width, dtype="int64") < lengths.unsqueeze(1)).astype("float32")


class AttentionFlow(nn.Layer):
    """Step 3 above.

    Args:
        size: width of the states of passages and questions.
    """

    def __init__(self, size: int):
        super().__init__()
        # No biases here nor in the last step: a softmax does not see them.
        self.of_passage, self.of_question = (nn.Linear(size, 1, bias_attr=False) for _ in range(2))
        self.of_both = self.create_parameter([size])

    def forward(self, passages, never_passage, questions, never_question, documents: Size) -> paddle.Tensor:
        """Return [p, u, p·u, p·h] for each word of the passages, float32 `[questions, documents · words, 4 · size]`.

        Args:
            passages: float32 `[questions, documents · words, size]`.
            questions: float32 `[questions, words, size]`.
            never_passage, never_question: `NEVER` at padding and 0 elsewhere, of the same shapes without size.
        """
        similarity = paddle.bmm(passages * self.of_both, questions.transpose([0, 2, 1]))
        similarity += self.of_passage(passages)
        similarity += (self.of_question(questions).squeeze(-1) + never_question).unsqueeze(1)
        seen = paddle.bmm(F.softmax(similarity, axis=-1), questions)
        rows, places, size = shape(passages)
        # Each passage is looked at by itself.
        apart = [rows * documents, places // documents]
        most = (similarity.max(axis=-1) + never_passage).reshape(apart).unsqueeze(1)
        pooled = paddle.bmm(F.softmax(most, axis=-1), passages.reshape([*apart, size]))
        pooled = pooled.expand([*apart, size]).reshape([rows, places, size])
        return paddle.concat([passages, seen, passages * seen, passages * pooled], axis=-1)


class Reader(nn.Layer):
    """Questions and passages to the probabilities of where an answer starts and ends.

    Args:
        num_words: size of the word embedding's vocabulary.
        word_emb_dim: width of the word embedding.
        hidden_size: of each direction of a GRU.
        elmo_vectors: what of ELMo is joined to the word embedding: "mix", the layers' trained average; or "lookup",
            the biLM's word embedding alone, without any context.
        dropout, elmo_dropout: share of the numbers dropped before each BiGRU and before the last step, and of the ELMo
            vectors, in training mode: the same ones at all words of a text.
        encoder: an `ElmoEncoder`, None for the reader without ELMo.

    Attributes:
        config: the sizes, as arguments of this class.
    """

    def __init__(
        self,
        num_words: int,
        word_emb_dim: int = 128,
        hidden_size: int = 64,
        elmo_vectors: str = "mix",
        dropout: float = 0.2,
        elmo_dropout: float = 0.4,
        encoder: Optional[ElmoEncoder] = None,
    ):
        super().__init__()
        if elmo_vectors not in VECTORS:
            raise ValueError(f"elmo_vectors must be one of {', '.join(VECTORS)}, got {elmo_vectors!r}")
        self.config = dict(
            num_words=num_words, word_emb_dim=word_emb_dim, hidden_size=hidden_size, elmo_vectors=elmo_vectors
        )
        self.dropout, self.elmo_dropout = dropout, elmo_dropout
        self.word_embedding = self.create_parameter(
            [num_words, word_emb_dim], default_initializer=nn.initializer.Normal(0.0, 1.0)
        )
        self.encoder = encoder
        width = word_emb_dim
        if encoder:
            width += encoder.embedding_dim if elmo_vectors == "mix" else encoder.config["embed_size"]
        both = 2 * hidden_size
        self.reading = BiGRU(width, hidden_size, decay=0)
        self.attention = AttentionFlow(both)
        self.start_modelling, self.end_modelling = BiGRU(4 * both, hidden_size, 0), BiGRU(both, hidden_size, 0)
        self.start, self.end = (nn.Linear(both, 1, bias_attr=False) for _ in range(2))

    def trained_parameters(self):
        """Return the parameters that an optimizer should get: all but those of a frozen biLM."""
        unused = set()
        if self.encoder and self.config["elmo_vectors"] == "lookup":
            unused = {parameter.name for parameter in self.encoder.mixes.parameters()}
        return [p for p in self.parameters() if not p.stop_gradient and p.name not in unused]

    def forward(self, batch: Batch, random: Random = NO_RANDOM) -> Tuple[paddle.Tensor, paddle.Tensor]:
        """Return the logarithms of the probabilities that an answer starts, and that it ends, at each word.

        Args:
            random: where dropout comes from, in training mode.

        Returns:
            float32 `[questions, documents · words]` twice; below -1e8 where there is no word.
        """
        start, end, never = self.logits(batch, random)
        # Paddle's log_softmax ends at -64 below the largest.
        return tuple(F.log_softmax(of_one, axis=-1) + never for of_one in (start, end))

    def logits(self, batch: Batch, random: Random = NO_RANDOM) -> Tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Return the numbers whose softmax `forward` takes, of the same shape, and `NEVER` where there is no word.

        Those of a passage do not depend on the other passages.
        """
        rows, documents = shape(batch.documents)
        questions = self._read(batch.questions, batch.question_lengths, batch.question_elmo, random.questions)
        passages = self._read(batch.passages, batch.passage_lengths, batch.passage_elmo, random.passages)
        (_, words, size), chosen = shape(passages), batch.documents.flatten()
        passages = paddle.gather(passages, chosen).reshape([rows, documents * words, size])
        lengths = paddle.gather(batch.passage_lengths, chosen)
        there = mask(words, lengths).reshape([rows, documents, words]) * batch.there.unsqueeze(-1)
        never = (1 - there.reshape([rows, documents * words])) * NEVER
        never_question = (1 - mask(shape(questions)[1], batch.question_lengths)) * NEVER
        matched = self.attention(passages, never, questions, never_question, documents)
        matched = self._drop(matched, MATCHED, self.dropout, random.questions)
        first = self._model(self.start_modelling, matched, lengths, documents)
        second = self._model(
            self.end_modelling, self._drop(first, MODELLED, self.dropout, random.questions), lengths, documents
        )
        return self.start(first).squeeze(-1) + never, self.end(second).squeeze(-1) + never, never

    def _read(self, word_ids, lengths, layers, random):
        """Return the states of the words of texts, float32 `[rows, words, 2 · hidden]`."""
        vectors = F.embedding(word_ids, self.word_embedding)
        if self.encoder:
            vectors = paddle.concat([self._elmo(layers, random), vectors], axis=-1)
        vectors = self._drop(vectors, INPUT, self.dropout, random)
        return _by_time(self.reading, vectors, lengths)

    def _elmo(self, layers, random):
        if self.config["elmo_vectors"] == "mix":
            vectors = self.encoder.mix(layers)
        else:
            size = self.encoder.config["embed_size"]
            vectors = F.layer_norm(layers[0][..., :size], size)
        return self._drop(vectors, ELMO, self.elmo_dropout, random)

    def _model(self, gru, states, lengths, documents):
        rows, places, size = shape(states)
        states = states.reshape([rows * documents, places // documents, size])
        return _by_time(gru, states, lengths).reshape([rows, places, 2 * gru.hidden_size])

    def _drop(self, tensor, stream, share, random):
        if not self.training or not share:
            return tensor
        keep = random.keep_mask(stream, tensor.shape[0], tensor.shape[-1], share)
        mask = paddle.to_tensor(keep.astype("float32") / (1 - share)).unsqueeze(1)
        return tensor * mask.expand(tensor.shape)  # Paddle's own way to widen a factor takes five times as long


class Exported(nn.Layer):
    """A reader with its biLM, from ids to what `Reader.forward` returns: what `mrc.export` saves.

    Args:
        reader: the network, which becomes a part of this.
    """

    def __init__(self, reader: Reader):
        super().__init__()
        self.reader = reader

    @as_it_is
    def forward(
        self,
        questions: paddle.Tensor,
        question_lengths: paddle.Tensor,
        passages: paddle.Tensor,
        passage_lengths: paddle.Tensor,
        documents: paddle.Tensor,
        there: paddle.Tensor,
        sentences: Optional[paddle.Tensor] = None,
        sentence_lengths: Optional[paddle.Tensor] = None,
        question_places: Optional[paddle.Tensor] = None,
        passage_places: Optional[paddle.Tensor] = None,
    ) -> Tuple[paddle.Tensor, paddle.Tensor]:
        """Return the logarithms of the probabilities; the first six arguments are those of `Batch`.

        Args:
            sentences, sentence_lengths: of all texts, as ids of the biLM, int64 `[sentences, words]`, `[sentences]`.
            question_places, passage_places: where each word of `questions` and `passages` is in `sentences`, taken as
                one row, int64 of their shapes; at padding any.
        """
        elmo = [None, None]
        if self.reader.encoder:
            layers = self.reader.encoder.layers(sentences, sentence_lengths).flatten(1, 2)
            for number, places in enumerate((question_places, passage_places)):
                found = paddle.gather(layers, places.flatten(), axis=1)
                elmo[number] = found.reshape([layers.shape[0], *shape(places), layers.shape[-1]])
        return self.reader(Batch(questions, question_lengths, passages, passage_lengths, documents, there, *elmo))


def _by_time(gru: BiGRU, states: paddle.Tensor, lengths: paddle.Tensor) -> paddle.Tensor:
    """Run a BiGRU over `[rows, words, size]`."""
    return swapped(gru(swapped(states), reverse_places(shape(states)[1], lengths)))


def costs(start: paddle.Tensor, end: paddle.Tensor, first: paddle.Tensor, last: paddle.Tensor) -> paddle.Tensor:
    """Return -log p(start) - log p(end) of each question, in nats, float32 `[questions]`.

    Args:
        start, end: what the network returned. first, last: int64 `[questions]`, the places of the answers' words.
    """
    picked = [paddle.take_along_axis(log, at.unsqueeze(1), axis=1) for log, at in ((start, first), (end, last))]
    return -(picked[0] + picked[1]).squeeze(1)
