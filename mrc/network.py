"""The reader's network: BiDAF as Baidu built it for DuReader, with ELMo vectors at its foot.

1. Words of question and passages: word embedding, joined by the ELMo vector if there is an encoder.
2. A BiLSTM over the question, another over each passage. A passage that several questions ask is read once.
3. Attention flow (Seo et al. 2017, "Bidirectional attention flow for machine comprehension"), from the dot product of
   passage and question states: p is a passage word's state, u the question as this word sees it (softmax over the
   question), h the passage as the question sees it (largest product of each word, softmax over the passage).
4. A BiLSTM over [p, u, p·u, p·h], the fusion.
5. Two pointers (Vinyals et al. 2015; Wang and Jiang 2017), from start to end and from end to start, whose
   probabilities are averaged. Their softmax is over all passages of a question together.

The size of a passage's array is [questions, documents · words, size]: a question's passages stand one after the other,
each padded to the same number of words.
"""

from typing import NamedTuple, Optional, Tuple

import paddle
import paddle.nn.functional as F
from paddle import nn

from bilm import ElmoEncoder, StepRandom

# What is added to a logit so that its probability is 0; finite, as a row may have nothing else.
NEVER = -1e9
# Dropout has these streams of a step; that of the ELMo layers has 1, 2 …
INPUT, MATCH, FUSION = 100, 101, 102


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

    questions: StepRandom
    passages: StepRandom


def random_of(seed: int, step: int, first_question: int = 0, first_passage: int = 0) -> Random:
    """Return the random numbers of a step, for a process whose rows start there in the batch."""
    # Questions and passages have every second step, so that they do not share their numbers.
    return Random(StepRandom(seed, 2 * step, first_question), StepRandom(seed, 2 * step + 1, first_passage))


def mask(width: int, lengths: paddle.Tensor) -> paddle.Tensor:
    """Return float32 `[rows, width]`, 1 at words and 0 at padding."""
    return (paddle.arange(width) < lengths.unsqueeze(1)).astype("float32")


class Pointer(nn.Layer):
    """Two steps of attention over the passages; the probability of a step is the attention itself.

    logits_t = v · tanh(W m + U s_t); the state s goes on by an LSTM cell that reads the passages as attended to.

    Args:
        size: width of the passages and of the question. hidden_size: of the LSTM cell.
    """

    def __init__(self, size: int, hidden_size: int):
        super().__init__()
        self.cell = nn.LSTMCell(size, hidden_size)
        self.passage = nn.Linear(size, hidden_size)
        self.state = nn.Linear(hidden_size, hidden_size, bias_attr=False)
        self.logit = nn.Linear(hidden_size, 1, bias_attr=False)

    def forward(self, passages, never, state) -> Tuple[paddle.Tensor, paddle.Tensor]:
        """Return the logarithms of the probabilities of both steps, float32 `[questions, places]` each.

        Args:
            passages: float32 `[questions, places, size]`. never: float32 `[questions, places]`, added to logits.
            state: hidden and cell, float32 `[questions, hidden_size]` each.
        """
        keys, steps = self.passage(passages), []
        for _ in range(2):
            scores = self.logit(paddle.tanh(keys + self.state(state[0]).unsqueeze(1))).squeeze(-1)
            steps.append(F.log_softmax(scores + never, axis=-1))
            if len(steps) == 1:
                attended = paddle.bmm(paddle.exp(steps[0]).unsqueeze(1), passages).squeeze(1)
                _, state = self.cell(attended, state)
        return steps[0], steps[1]


def averaged(first: paddle.Tensor, second: paddle.Tensor) -> paddle.Tensor:
    """Return the logarithm of the average of probabilities given by their logarithms."""
    return paddle.logsumexp(paddle.stack([first, second]), axis=0) - 0.6931471805599453


def attention_flow(passages, never_passage, questions, never_question, documents: int) -> paddle.Tensor:
    """Return [p, u, p·u, p·h] for each word of the passages, float32 `[questions, documents · words, 4 · size]`.

    Args:
        passages: float32 `[questions, documents · words, size]`. never_passage: float32 `[questions, documents · words]`.
        questions: float32 `[questions, words, size]`. never_question: float32 `[questions, words]`.
    """
    similarity = paddle.bmm(passages, questions.transpose([0, 2, 1])) + never_question.unsqueeze(1)
    seen = paddle.bmm(F.softmax(similarity, axis=-1), questions)
    rows, places, size = passages.shape
    # Each passage is looked at by itself.
    most = (similarity.max(axis=-1) + never_passage).reshape([rows * documents, 1, -1])
    pooled = paddle.bmm(F.softmax(most, axis=-1), passages.reshape([rows * documents, -1, size]))
    pooled = pooled.expand([rows * documents, places // documents, size]).reshape([rows, places, size])
    return paddle.concat([passages, seen, passages * seen, passages * pooled], axis=-1)


class Reader(nn.Layer):
    """Questions and passages to the probabilities of where an answer starts and ends.

    Args:
        num_words: size of the word embedding's vocabulary.
        word_emb_dim: width of the word embedding.
        hidden_size: of each direction of an LSTM.
        elmo_vectors: what of ELMo is joined to the word embedding: "mix", the layers' trained average; or "lookup",
            the biLM's word embedding alone, without any context.
        dropout: share of the numbers dropped before each BiLSTM and before the pointers, in training mode: the same
            ones at all words of a text.
        encoder: an `ElmoEncoder`, None for the reader without ELMo.

    Attributes:
        config: the sizes, as arguments of this class.
    """

    def __init__(
        self,
        num_words: int,
        word_emb_dim: int = 300,
        hidden_size: int = 150,
        elmo_vectors: str = "mix",
        dropout: float = 0.2,
        encoder: Optional[ElmoEncoder] = None,
    ):
        super().__init__()
        self.config = dict(
            num_words=num_words, word_emb_dim=word_emb_dim, hidden_size=hidden_size, elmo_vectors=elmo_vectors
        )
        self.dropout = dropout
        self.word_embedding = self.create_parameter(
            [num_words, word_emb_dim], default_initializer=nn.initializer.Normal(0.0, 1.0)
        )
        self.encoder = encoder
        width = word_emb_dim
        if encoder:
            width += encoder.embedding_dim if elmo_vectors == "mix" else encoder.config["embed_size"]
        both = 2 * hidden_size
        self.question_lstm = nn.LSTM(width, hidden_size, direction="bidirect")
        self.passage_lstm = nn.LSTM(width, hidden_size, direction="bidirect")
        self.fusion_lstm = nn.LSTM(4 * both, hidden_size, direction="bidirect")
        self.pool = nn.Linear(both, hidden_size)
        self.pool_logit = nn.Linear(hidden_size, 1, bias_attr=False)
        self.first_hidden, self.first_cell = nn.Linear(both, hidden_size), nn.Linear(both, hidden_size)
        self.forward_pointer, self.backward_pointer = Pointer(both, hidden_size), Pointer(both, hidden_size)

    def trained_parameters(self):
        """Return the parameters that an optimizer should get: all but those of a frozen biLM."""
        unused = set()
        if self.encoder and self.config["elmo_vectors"] == "lookup":
            unused = {parameter.name for parameter in self.encoder.mixes.parameters()}
        return [p for p in self.parameters() if not p.stop_gradient and p.name not in unused]

    def forward(self, batch: Batch, random: Optional[Random] = None) -> Tuple[paddle.Tensor, paddle.Tensor]:
        """Return the logarithms of the probabilities that an answer starts, and that it ends, at each word.

        Args:
            random: where dropout comes from, in training mode.

        Returns:
            float32 `[questions, documents · words]` twice; below -1e8 where there is no word.
        """
        random = random or Random(None, None)
        rows, documents = batch.documents.shape
        questions = self._vectors(batch.questions, batch.question_elmo, random.questions)
        questions, _ = self.question_lstm(questions, sequence_length=batch.question_lengths)
        passages = self._vectors(batch.passages, batch.passage_elmo, random.passages)
        passages, _ = self.passage_lstm(passages, sequence_length=batch.passage_lengths)
        words = passages.shape[1]
        chosen = batch.documents.flatten()
        passages = paddle.gather(passages, chosen).reshape([rows, documents * words, -1])
        there = mask(words, batch.passage_lengths)
        there = paddle.gather(there, chosen).reshape([rows, documents, words]) * batch.there.unsqueeze(-1)
        never = (1 - there.reshape([rows, documents * words])) * NEVER
        never_question = (1 - mask(questions.shape[1], batch.question_lengths)) * NEVER
        matched = attention_flow(passages, never, questions, never_question, documents)
        matched = self._drop(matched, MATCH, random.questions)
        lengths = paddle.gather(batch.passage_lengths, chosen)
        fused, _ = self.fusion_lstm(matched.reshape([rows * documents, words, -1]), sequence_length=lengths)
        fused = self._drop(fused.reshape([rows, documents * words, -1]), FUSION, random.questions)
        return self._point(fused, never, questions, never_question)

    def _point(self, passages, never, questions, never_question):
        scores = self.pool_logit(paddle.tanh(self.pool(questions))).squeeze(-1) + never_question
        pooled = paddle.bmm(F.softmax(scores, axis=-1).unsqueeze(1), questions).squeeze(1)
        state = (self.first_hidden(pooled), self.first_cell(pooled))
        start, end = self.forward_pointer(passages, never, state)
        back_end, back_start = self.backward_pointer(passages, never, state)
        return averaged(start, back_start), averaged(end, back_end)

    def _vectors(self, word_ids, layers, random):
        """Return what the words of texts go into the BiLSTMs as, float32 `[rows, words, width]`."""
        vectors = F.embedding(word_ids, self.word_embedding)
        if self.encoder and self.config["elmo_vectors"] == "mix":
            vectors = paddle.concat([self.encoder.mix(layers, random), vectors], axis=-1)
        elif self.encoder:
            size = self.encoder.config["embed_size"]
            vectors = paddle.concat([F.layer_norm(layers[0][..., :size], size), vectors], axis=-1)
        return self._drop(vectors, INPUT, random)

    def _drop(self, tensor, stream, random):
        if not self.training or not self.dropout:
            return tensor
        keep = random.keep_mask(stream, tensor.shape[0], tensor.shape[-1], self.dropout)
        return tensor * paddle.to_tensor(keep.astype("float32") / (1 - self.dropout)).unsqueeze(1)


def costs(start: paddle.Tensor, end: paddle.Tensor, first: paddle.Tensor, last: paddle.Tensor) -> paddle.Tensor:
    """Return -log p(start) - log p(end) of each question, in nats, float32 `[questions]`.

    Args:
        start, end: what the network returned. first, last: int64 `[questions]`, the places of the answers' words.
    """
    picked = [paddle.take_along_axis(log, at.unsqueeze(1), axis=1) for log, at in ((start, first), (end, last))]
    return -(picked[0] + picked[1]).squeeze(1)
