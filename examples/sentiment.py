"""Is a review good or bad? A network of your own with ELMo in it, from the text to a program that is served.

    python sentiment.py --train train.tsv --test test.tsv --model runs/mine --save sentiment
    echo 房间很干净，下次还会来。 | python serve.py sentiment

A line of the files is a label, a tab and a text; --model is what `train.py` or `elmo-publish` made.
--elmo false trains the same network without ELMo.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F

from bilm import batch_to_ids, elmo_encoder, init_pretraining_params, load_encoder, segmenter_of


class Reviews(paddle.io.Dataset):
    """Labelled texts, cut into words once: the items are (words, number of the label)."""

    def __init__(self, path, segmenter, labels=None, max_words=64):
        rows = [line.split("\t", 1) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        self.labels = labels or sorted({label for label, _ in rows})
        self.items = [(segmenter.cut(text)[:max_words], self.labels.index(label)) for label, text in rows]

    def __getitem__(self, number):
        return self.items[number]

    def __len__(self):
        return len(self.items)


def batches(reviews, vocabulary, batch_size=32, shuffle=False):
    """Return a loader of (word_ids [batch, words], lengths [batch], labels [batch])."""

    def collate(items):
        words, labels = zip(*items)
        return (*batch_to_ids(words, vocabulary), paddle.to_tensor(labels))

    return paddle.io.DataLoader(reviews, batch_size=batch_size, shuffle=shuffle, collate_fn=collate)


class Network(paddle.nn.Layer):
    """Each word: its ELMo vector beside its word embedding. Each text: the maximum of a convolution over its words."""

    def __init__(self, vocab_size, num_labels, model=None, embed_size=64, channels=100):
        super().__init__()
        self.words = paddle.nn.Embedding(vocab_size, embed_size)
        self.elmo = init_pretraining_params(None, model) if model else None
        width = embed_size + (self.elmo.embedding_dim if model else 0)
        self.convolution = paddle.nn.Conv1D(width, channels, 3, padding=1, data_format="NLC")
        self.out = paddle.nn.Linear(channels, num_labels)

    def forward(self, word_ids, lengths):
        vectors = self.words(word_ids)
        if self.elmo:
            vectors = paddle.concat([elmo_encoder(word_ids, lengths=lengths, encoder=self.elmo), vectors], axis=-1)
        mask = (paddle.arange(word_ids.shape[1]) < lengths.unsqueeze(1)).astype("float32").unsqueeze(-1)
        seen = F.relu(self.convolution(vectors * mask)) * mask
        return self.out(F.dropout(seen.max(axis=1), 0.5, training=self.training))  # [batch, labels]


def train(network, loader, epochs):
    """Train with Adam; the biLM is frozen, its mix (ELMo_w, ELMo_gamma) is trained with the rest."""
    optimizer = paddle.optimizer.Adam(0.001, parameters=network.parameters())
    for epoch in range(epochs):
        network.train()
        losses = []
        for word_ids, lengths, labels in loader:
            loss = F.cross_entropy(network(word_ids, lengths), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{epochs}  loss {np.mean(losses):.4f}", flush=True)


@paddle.no_grad()
def accuracy(network, loader):
    """Return the share of texts with the right label, in percent."""
    network.eval()
    right = [(network(word_ids, lengths).argmax(-1) == labels).numpy() for word_ids, lengths, labels in loader]
    return 100 * np.concatenate(right).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "model", "save"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--elmo", choices=["true", "false"], default="true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paddle.seed(options.seed), np.random.seed(options.seed)
    _, vocabulary = load_encoder(options.model)
    segmenter = segmenter_of(vocabulary)
    reviews = Reviews(options.train, segmenter)
    test = batches(Reviews(options.test, segmenter, reviews.labels), vocabulary, 64)
    network = Network(len(vocabulary), len(reviews.labels), options.model if options.elmo == "true" else None)
    train(network, batches(reviews, vocabulary, shuffle=True), options.epochs)
    print(f"accuracy {accuracy(network, test):.2f} % of {len(test.dataset)} texts")
    export(network, vocabulary, reviews.labels, Path(options.save))


def export(network, vocabulary, labels, folder):
    """Save the network as a program, and beside it what makes word ids of a text and labels of the answers."""
    network.eval()
    shapes = {"word_ids": [None, None], "lengths": [None]}
    spec = [paddle.static.InputSpec(shape, "int64", name) for name, shape in shapes.items()]
    paddle.jit.save(network, str(folder / "network"), input_spec=spec)
    (folder / "vocabulary.txt").write_text(vocabulary.text, encoding="utf-8")
    (folder / "vocabulary.segmenter.json").write_text(json.dumps(vocabulary.note), encoding="utf-8")
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")


if __name__ == "__main__":
    main()
