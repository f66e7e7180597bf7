"""Make a static inference model of a tagger: one that runs without the Python code of its network.

    python -m lac.export --model lac_model --output lac_exported
    echo 上海的房价连续四个月保持平稳。 | python -m lac.predict --model lac_exported

    lac_exported/
      tagger.pdmodel, tagger.pdiparams   program (Paddle 3: tagger.json) and parameters, for Paddle Inference too:
                                         word_ids int64 [batch, words], lengths int64 [batch], with ELMo also
                                         elmo_ids int64 [batch, words] → the best tags, int64 [batch, words]
      vocabulary.txt, tag.dic, q2b.dic   words of the embedding, tags by id, replacements before the look-up
      text.json, dictionary.txt          how text is cut and looked up, and the dictionary that it is cut by
      elmo_vocabulary.txt                words of the biLM, with ELMo
      network.npz                        without ELMo: the parameters by name, which `lac.predict` gives to the loops in
                                         C++ where it can use them; elsewhere it runs the program
      SHA256SUMS                         checksums of the files above

The network's recurrences have a backward pass of their own (`PyLayer`), which a program of any number of words
cannot hold. Here they are loops in the program, from the same weights.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

from elmo_chinese.command import command
from elmo_chinese.console import say
from elmo_chinese.files import check_apart, write_sums, writing
from elmo_chinese.text.reading import InputError
from elmo_chinese.training.flags import Parser

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.static import InputSpec

from lac import model as tagging
from lac.crf import shifted_ends
from lac.model import PROGRAM, Model
from lac.release import load_any


def _project(gru, inputs):
    """Return what all steps of a GRU get from the input: one product."""
    return F.linear(inputs, gru.input_w, gru.input_b)


class _GRUStep(nn.RNNCellBase):
    """One step of `elmo_chinese.network.gru.GRU`; its input is projected already."""

    def __init__(self, gru):
        super().__init__()
        self.gru = gru

    def forward(self, projected, hidden):
        size = self.gru.candidate_w.shape[0]
        gate = F.sigmoid(projected[:, : 2 * size] + paddle.matmul(hidden, self.gru.gate_w))
        update, reset = gate[:, :size], gate[:, size:]
        candidate = paddle.tanh(projected[:, 2 * size :] + paddle.matmul(reset * hidden, self.gru.candidate_w))
        hidden = hidden + update * (candidate - hidden)
        return hidden, hidden


class _LSTMPStep(nn.RNNCellBase):
    """One step of `lstmp.LSTMP`; its input is projected already."""

    def __init__(self, lstmp):
        super().__init__()
        self.lstmp = lstmp

    def forward(self, projected, states):
        hidden, cell = states
        gate = projected + paddle.matmul(hidden, self.lstmp.recurrent_w)
        candidate, in_gate, forget_gate, out_gate = paddle.split(gate, 4, axis=1)
        cell = paddle.tanh(candidate) * F.sigmoid(in_gate) + cell * F.sigmoid(forget_gate)
        cell = paddle.clip(cell, -self.lstmp.cell_clip, self.lstmp.cell_clip)
        hidden = paddle.matmul(F.sigmoid(out_gate) * paddle.tanh(cell), self.lstmp.projection_w)
        hidden = paddle.clip(hidden, -self.lstmp.proj_clip, self.lstmp.proj_clip)
        return hidden, (hidden, cell)


def _places(lengths, like):
    """Return the places of the reversed sentences' words in `[batch · words]`; padding stays where it is."""
    ones = paddle.ones_like(like)
    place, row = paddle.cumsum(ones, axis=1) - 1, paddle.cumsum(ones, axis=0) - 1
    swapped = paddle.where(place < lengths.unsqueeze(1), lengths.unsqueeze(1) - 1 - place, place)
    return (row * paddle.shape(like)[1].astype("int64") + swapped).flatten()


def _reorder(tensor, places):
    return paddle.reshape(paddle.gather(tensor.flatten(0, 1), places), paddle.shape(tensor))


class Program(nn.Layer):
    """The network of a `Tagger` in operators that a static program can hold; batch-major throughout."""

    def __init__(self, tagger):
        super().__init__()
        self.tagger, self.encoder = tagger, tagger.encoder
        self.gru_loops = nn.LayerList(
            [nn.RNN(_GRUStep(gru)) for block in tagger.blocks for gru in (block.forward_gru, block.backward_gru)]
        )
        if self.encoder:
            lstm = self.encoder.lstm
            self.lstm_loops = nn.LayerList(
                [nn.RNN(_LSTMPStep(layer)) for layer in [*lstm.forward_layers, *lstm.backward_layers]]
            )

    def forward(self, word_ids, lengths, elmo_ids=None):
        inputs = F.embedding(word_ids, self.tagger.word_embedding)
        if self.encoder:
            inputs = paddle.concat([self._elmo(elmo_ids, lengths), inputs], axis=-1)
        places = _places(lengths, word_ids)
        for number, block in enumerate(self.tagger.blocks):
            ahead, back = self.gru_loops[2 * number], self.gru_loops[2 * number + 1]
            start = self._zeros(word_ids, block.hidden_size)
            forward, _ = ahead(_project(block.forward_gru, inputs), start)
            backward, _ = back(_reorder(_project(block.backward_gru, inputs), places), start)
            inputs = paddle.concat([forward, _reorder(backward, places)], axis=-1)
        emissions = shifted_ends(
            F.linear(inputs, self.tagger.output_w, self.tagger.output_b), lengths, self.tagger.crfw
        )
        return paddle.text.viterbi_decode(emissions, self.tagger.crfw[2:], lengths, False)[1]

    def _zeros(self, like, size):
        return paddle.zeros([paddle.shape(like)[0], size])

    def _elmo(self, ids, lengths):
        encoder = self.encoder
        if not encoder.boundaries:
            return encoder.mix(paddle.stack(self._layers(ids, lengths)))
        # `<S>` before the first word, `</S>` in place of the padding after the last.
        edge = paddle.ones_like(ids[:, :1])
        padded = paddle.concat([encoder.start * edge, ids, encoder.end * edge], axis=1)
        place = paddle.cumsum(paddle.ones_like(padded), axis=1) - 1
        padded = paddle.where(place == lengths.unsqueeze(1) + 1, paddle.full_like(padded, encoder.end), padded)
        return encoder.mix(paddle.stack([layer[:, 1:-1] for layer in self._layers(padded, lengths + 2)]))

    def _layers(self, ids, lengths):
        lstm, places = self.encoder.lstm, _places(lengths, ids)
        count = len(lstm.forward_layers)
        embedded = F.embedding(ids, lstm.embedding)
        ahead = self._stack(embedded, 0, count)
        back = self._stack(_reorder(embedded, places), count, 2 * count)
        if not self.encoder.legacy:
            back = [_reorder(layer, places) for layer in back]
        pairs = [(embedded, embedded), *zip(ahead, back)]
        return [paddle.concat(pair, axis=-1) for pair in pairs]

    def _stack(self, embedded, first, last):
        """Return the output of each LSTM layer of one direction, before the residual sum."""
        config, top, outputs = self.encoder.config, embedded, []
        start = (self._zeros(embedded, config["embed_size"]), self._zeros(embedded, config["hidden_size"]))
        for number in range(first, last):
            inputs = embedded if self.encoder.legacy else top
            layer = self.lstm_loops[number].cell.lstmp
            output, _ = self.lstm_loops[number](F.linear(inputs, layer.gate_w, layer.bias.flatten()), start)
            top = output if number == first else output + inputs
            outputs.append(output)
        return outputs


def save(model: Model, folder: Path) -> None:
    """Write the static model of a tagger; the folder appears when it is complete.

    Raises:
        InputError: it is there already, or the model is an exported one.
        OSError: it cannot be written, or another process was quicker.
    """
    if model.tagger is None:
        raise InputError("this model was exported already; --model takes one of lac.train")
    if str(folder).encode("utf-8", "replace").decode("utf-8") != str(folder):
        raise InputError(f"--output {folder}: Paddle writes programs under names in UTF-8 only; choose another name")
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already; choose another --output, or delete it first")
    with writing(folder) as beside:
        _write(model, beside)


def _write(model: Model, beside: Path) -> None:
    beside.mkdir()
    program = Program(model.tagger)
    program.eval()
    specs = [InputSpec([None, None], "int64", "word_ids"), InputSpec([None], "int64", "lengths")]
    if model.elmo_vocabulary:
        specs.append(InputSpec([None, None], "int64", "elmo_ids"))
    with warnings.catch_warnings():
        for own in ("The Attr.force_cpu. of Op", "Tensor do not have 'place'"):  # Paddle's, about its loops
            warnings.filterwarnings("ignore", message=own)
        paddle.jit.save(paddle.jit.to_static(program, input_spec=specs, full_graph=True), str(beside / PROGRAM))
    texts = {
        "vocabulary.txt": tagging.vocabulary_text(model),
        "tag.dic": "".join(tag + "\n" for tag in model.text.tags),
        "q2b.dic": "".join(f"{chr(key)}\t{value}\n" for key, value in model.text.table.items()),
        tagging.TEXT_FILE: json.dumps(model.text.info()) + "\n",
        tagging.DICTIONARY: model.text.cutter.dictionary,
    }
    if model.elmo_vocabulary:
        texts[tagging.ELMO_VOCABULARY] = model.elmo_vocabulary.text
    else:
        arrays = {name: parameter.numpy() for name, parameter in model.tagger.state_dict().items()}
        np.savez(beside / tagging.NETWORK, **arrays)
    for name, text in texts.items():
        (beside / name).write_bytes(text.encode("utf-8"))
    write_sums(beside, sorted(path.name for path in beside.iterdir()))


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="folder of lac.train or of a released model; or lac, seg: the released ones"
    )
    parser.add_argument("--output", required=True, help="folder to make")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with command(options.output):
        check_apart("--output", [options.output], [options.model])
        save(load_any(options.model), Path(options.output))
        say(f"exported to {options.output}")


if __name__ == "__main__":
    main()
