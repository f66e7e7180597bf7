"""The released network that weighs words: 0 (says nothing) to 3 (what the text is about).

Word and tag of each token → an LSTM from the first word to the last and one from the last to the first → two linear
layers → the weight. The LSTMs have peepholes, that is, the gates see the cell (Gers and Schmidhuber 2000):

    i, f = sigmoid(g_i + w_i · c_before), sigmoid(g_f + w_f · c_before)
    c = f · c_before + i · tanh(g_c),   o = sigmoid(g_o + w_o · c),   h = o · tanh(c)

with g = x W_x + h_before W, columns in the order candidate, input, forget, output.
"""

import functools
from typing import Dict, List, Sequence, Tuple

from elmo_chinese.network import kernels
from elmo_chinese.network.gru import reorder, reverse_places
from elmo_chinese.training.batches import batches_by_length, pad

import numpy as np
import paddle
import paddle.nn.functional as F

DENSE = ["fc_2.w_0", "fc_2.b_0", "fc_3.w_0", "fc_3.b_0"]
BATCH_TOKENS = 8192


class Ranker:
    """The network; its sizes are those of its files.

    Args:
        variables: arrays by the release's names (`lac.release.RANKER_VARIABLES`).
    """

    def __init__(self, variables: Dict[str, np.ndarray]):
        self.variables = {name: paddle.to_tensor(array.astype(np.float32)) for name, array in variables.items()}
        self.size = variables["lstm_0.w_0"].shape[0]

    def weights(self, words: Sequence[np.ndarray], tags: Sequence[np.ndarray]) -> List[np.ndarray]:
        """Return a weight for each token of each sentence, int64.

        Args:
            words, tags: ids, int64 `[tokens]` for each sentence, at least one token in each.
        """
        lengths = np.array([len(ids) for ids in words])
        if kernels.library():
            return np.split(self._in_cpp(np.concatenate(words), np.concatenate(tags), lengths), np.cumsum(lengths)[:-1])
        found: List[np.ndarray] = [np.zeros(0, np.int64)] * len(words)
        for several in batches_by_length(lengths, BATCH_TOKENS, len(words)):
            ids = [pad([one[number] for number in several]) for one in (words, tags)]
            for number, row in zip(several, self._batch(*ids, lengths[several])):
                found[number] = row[: lengths[number]]
        return found

    def _in_cpp(self, words, tags, lengths):
        found, sizes, weights = np.empty_like(words), *self._for_cpp
        kernels.call("rank_sentences", [len(lengths), *sizes], [], [lengths], [words, tags], *weights, [found])
        return found

    @functools.cached_property
    def _for_cpp(self) -> Tuple[List[int], List[kernels.Fixed]]:
        """The sizes and the weights as `rank_sentences` of `cpp/tagging.cc` takes them."""
        v, size = self.variables, self.size
        tables, dense = [v["word_emb"], v["embedding_1.w_0"]], [v[name] for name in DENSE]
        input_w, recurrent_w = ([v[f"{name}_{n}.w_0"] for n in (0, 1)] for name in ("fc", "lstm"))
        # The LSTMs' own bias goes with that of their input; behind it stand the peepholes.
        biases = [v[f"lstm_{n}.b_0"].numpy().ravel() for n in (0, 1)]
        inputs = [bias[: 4 * size] + v[f"fc_{n}.b_0"].numpy().ravel() for n, bias in enumerate(biases)]
        peepholes = [np.ascontiguousarray(bias[4 * size :]) for bias in biases]
        sizes = [tables[0].shape[1], tables[1].shape[1], size, dense[0].shape[1], dense[2].shape[1]]
        return sizes, [kernels.Fixed(group) for group in (tables, input_w, inputs, recurrent_w, peepholes, dense)]

    @paddle.no_grad()
    def _batch(self, words, tags, lengths):
        v = self.variables
        embedded = [
            F.embedding(paddle.to_tensor(ids.T), v[n]) for ids, n in ((words, "word_emb"), (tags, "embedding_1.w_0"))
        ]
        inputs = paddle.concat(embedded, axis=-1)
        reverse = reverse_places(words.shape[1], paddle.to_tensor(lengths))
        gates = [F.linear(inputs, v[f"fc_{n}.w_0"], v[f"fc_{n}.b_0"].flatten()) for n in (0, 1)]
        ahead, back = self._steps(paddle.stack([gates[0], reorder(gates[1], reverse)], axis=1))
        states = paddle.concat([ahead, reorder(back, reverse)], axis=-1)
        hidden = F.relu(F.linear(states, v["fc_2.w_0"], v["fc_2.b_0"].flatten()))
        return F.linear(hidden, v["fc_3.w_0"], v["fc_3.b_0"].flatten()).argmax(axis=-1).numpy().T

    def _steps(self, gates):
        """Run both directions `[steps, 2, batch, 4·size]` from zero states; return `[steps, batch, size]` of each."""
        v, size = self.variables, self.size
        weight = paddle.stack([v["lstm_0.w_0"], v["lstm_1.w_0"]])
        bias = paddle.stack([v["lstm_0.b_0"].flatten(), v["lstm_1.b_0"].flatten()]).unsqueeze(1)
        bias, peephole_i, peephole_f, peephole_o = paddle.split(bias, [4 * size, size, size, size], axis=-1)
        hidden = cell = paddle.zeros([2, gates.shape[2], size])
        hiddens = []
        for gate in paddle.unbind(gates + bias):
            candidate, in_gate, forget_gate, out_gate = paddle.split(gate + paddle.matmul(hidden, weight), 4, axis=-1)
            in_gate, forget_gate = F.sigmoid(in_gate + peephole_i * cell), F.sigmoid(forget_gate + peephole_f * cell)
            cell = forget_gate * cell + in_gate * paddle.tanh(candidate)
            hidden = F.sigmoid(out_gate + peephole_o * cell) * paddle.tanh(cell)
            hiddens.append(hidden)
        return paddle.unbind(paddle.stack(hiddens), axis=1)
