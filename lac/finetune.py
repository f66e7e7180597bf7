"""Train a released model on: python -m lac.finetune --train_data mine.txt --output my_lac

Lines are those of the release, `word/tag word/tag …`, in mode seg `word word …`. The result is a folder of the
release's own kind (`lac/release.py`): `python -m lac.predict --model my_lac` and `LAC("my_lac")` run from it.
"""

import runtime  # noqa: F401, I001  first: its settings must be made before Paddle is imported

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import paddle

from bilm import StepRandom
from gradients import clip_gradients
from lac import release
from lac.interface import join_characters
from lac.reader import pad, training_batches
from lac.release import Release
from lac.scores import Scores, Span, score
from metrics import say
from options import Parser, fail, positive, positive_int, whole_number
from pretrained import PretrainedError, write_fluid_variable
from reader import InputError, find_files, read_lines

MAX_GRADIENT_NORM = 5.0
Words = List[Tuple[str, str]]  # words and their types


class Example(NamedTuple):
    """A line as the network gets it, int64 `[tokens]` each, and its words as spans of characters."""

    words: np.ndarray
    tags: np.ndarray
    text: str
    gold: List[Span]


def parse_line(line: str, typed: bool) -> Words:
    """Return the words of a line and their types; `ValueError` says what is wrong with it."""
    words = []
    for item in line.split():
        word, slash, kind = item.rpartition("/") if typed else (item, "/", "")
        if not word or (typed and not (slash and kind)):
            raise ValueError(f"expected word/tag, found {item!r}")
        words.append((word, kind))
    return words


def example(model: Release, words: Words) -> Example:
    """Return a line for training: the model's tokens, cut further where they cross the end of a word.

    Raises:
        ValueError: a type that the model does not have.
    """
    text, ids = "".join(word for word, _ in words), {name: number for number, name in enumerate(model.model.tags)}
    gold, names, starts, place = [], [], set(), 0
    for word, kind in words:
        gold.append(Span(place, place + len(word), kind))
        names += _names(kind, len(word), model.mode)
        starts.add(place)
        place += len(word)
    unknown = next((name for name in names if name not in ids), None)
    if unknown:
        kinds = sorted({release.kind(name) for name in ids} - {""})
        raise ValueError(f"unknown type {unknown[:-2]!r}; the model has {', '.join(kinds)}")
    tokens, places, place = [], [], 0
    for token in model.cut(text):
        inner = [n for n in range(place + 1, place + len(token)) if n in starts]
        cut = [token] if not inner else list(token)  # what is no longer a token falls into characters, as at prediction
        for piece in cut:
            tokens.append(piece)
            places.append(place)
            place += len(piece)
    tags = np.array([ids[names[place]] for place in places], dtype=np.int64)
    return Example(release.token_ids(model, tokens), tags, text, gold)


def _names(kind: str, size: int, mode: str) -> List[str]:
    if mode == "seg" and size == 1:
        return ["-S"]
    last = ["-E"] if mode == "seg" else [f"{kind}-I"]
    return [f"{kind}-B", *[f"{kind}-I"] * (size - 2), *last[: size - 1]]


def read_examples(model: Release, paths: Sequence[str]) -> List[Example]:
    """Return the lines of files, blank ones left out.

    Raises:
        InputError: naming file and line.
    """
    examples = []
    for path in find_files(paths):
        for number, line in enumerate((line for block in read_lines(path) for line in block), start=1):
            try:
                words = parse_line(line, model.mode != "seg")
                if words:
                    examples.append(example(model, words))
            except ValueError as error:
                raise InputError(f"{path}: line {number}: {error}")
    if not examples:
        raise InputError(f"{', '.join(map(str, paths))}: no line with words in it")
    return examples


def train(model: Release, examples: Sequence[Example], epochs: int, batch_size: int, learning_rate: float, seed: int):
    """Train in place; yield the mean cost of a line after each pass, in nats.

    Raises:
        FloatingPointError: cost or gradient is not finite.
    """
    tagger = model.model.tagger
    optimizer = paddle.optimizer.Adam(learning_rate, parameters=tagger.trained_parameters())
    lengths = np.array([len(one.words) for one in examples])
    for epoch in range(epochs):
        tagger.train()
        total = 0.0
        for step, batch in enumerate(training_batches(lengths, batch_size, seed, epoch)):
            arrays = pad([examples[n].words for n in batch]), lengths[batch], pad([examples[n].tags for n in batch])
            random = StepRandom(seed, epoch * len(lengths) + step)
            cost = tagger.costs(*map(paddle.to_tensor, arrays), None, random).mean()
            cost.backward()
            norm = clip_gradients(tagger.trained_parameters(), MAX_GRADIENT_NORM)
            if not np.isfinite(norm + float(cost)):
                raise FloatingPointError(f"cost {float(cost)}, gradient norm {norm}; lower the learning rate")
            optimizer.step()
            optimizer.clear_grad()
            total += float(cost) * len(batch)
        tagger.eval()
        yield total / len(examples)


def evaluate(model: Release, examples: Sequence[Example]) -> Scores:
    """Return precision, recall and F1 over words."""
    found = []
    for one, tagged in zip(examples, release.tag_characters(model, [one.text for one in examples])):
        words, kinds, _ = join_characters(one.text, tagged.tags, None)
        ends = np.cumsum([len(word) for word in words])
        found.append((one.gold, [Span(int(e) - len(w), int(e), k) for w, e, k in zip(words, ends, kinds)]))
    return score(found)


def variables(model: Release) -> Dict[str, np.ndarray]:
    """Return the network's arrays by the release's names; the GRUs' own biases are in those of their input."""
    tagger = model.model.tagger
    arrays = {"word_emb": tagger.word_embedding, "crfw": tagger.crfw}
    arrays.update({"fc_4.w_0": tagger.output_w, "fc_4.b_0": tagger.output_b})
    arrays = {name: parameter.numpy() for name, parameter in arrays.items()}
    grus = [gru for block in tagger.blocks for gru in (block.forward_gru, block.backward_gru)]
    for number, gru in enumerate(grus):
        flat = np.concatenate([gru.gate_w.numpy().ravel(), gru.candidate_w.numpy().ravel()])
        arrays[f"fc_{number}.w_0"], arrays[f"fc_{number}.b_0"] = gru.input_w.numpy(), gru.input_b.numpy()
        arrays[f"gru_{number}.w_0"] = flat.reshape(gru.candidate_w.shape[0], -1)
        arrays[f"gru_{number}.b_0"] = np.zeros((1, gru.input_b.shape[0]), dtype=np.float32)
    return arrays


def save(model: Release, folder: Path) -> None:
    """Write the model as a folder of the release's kind, beside and renamed.

    Raises:
        InputError: there is something already, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; choose another output, or delete it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder.parent))
        try:
            shutil.copytree(model.folder / "conf", beside / "conf")
            (beside / "model").mkdir()
            for name, array in variables(model).items():
                write_fluid_variable(beside / "model" / name, array)
            if folder.exists():
                folder.rmdir()
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}")


def finetune(
    model: Release,
    train_data: Sequence[str],
    output: str,
    test_data: Optional[Sequence[str]] = None,
    epochs: int = 5,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Train a released model on and save it; see the flags below."""
    if model.mode == "rank":
        raise InputError("mode rank: only the taggers, lac and seg, can be trained on")
    if Path(output).exists() and (not Path(output).is_dir() or any(Path(output).iterdir())):
        raise InputError(f"{output} is not empty; choose another output, or delete it first")
    examples = read_examples(model, train_data)
    tests = read_examples(model, test_data) if test_data else None
    if tests:
        say(f"before      F1 {100 * evaluate(model, tests).overall.f1:.2f} on {len(tests)} lines")
    paddle.seed(seed)
    for epoch, cost in enumerate(train(model, examples, epochs, batch_size, learning_rate, seed), start=1):
        line = f"epoch {epoch}/{epochs}  loss {cost:.4f}"
        say(line + (f"  F1 {100 * evaluate(model, tests).overall.f1:.2f}" if tests else ""))
    save(model, Path(output))
    say(f"saved       {output}; tag with: python -m lac.predict --mode {model.mode} --model {output}")


def main(arguments=None):
    """Run from the command line; user errors end with a message and exit code 1."""
    parser = Parser(prog="lac.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a released model; none: the one of --mode, got by lac.release")
    parser.add_argument("--mode", choices=["lac", "seg"], default="lac", help="default: lac")
    parser.add_argument("--train_data", nargs="+", required=True, help="lines to train on: files, folders or patterns")
    parser.add_argument("--test_data", nargs="+", help="lines to score before and after each pass")
    parser.add_argument("--output", required=True, help="folder of the new model")
    parser.add_argument("--epochs", type=positive_int, default=5, help="passes over the lines; default: 5")
    parser.add_argument("--batch_size", type=positive_int, default=32, help="lines a step; default: 32")
    parser.add_argument("--learning_rate", type=positive, default=1e-3, help="of Adam; default: 0.001")
    parser.add_argument("--seed", type=whole_number, default=0, help="of the order of lines; default: 0")
    options = vars(parser.parse_args(sys.argv[1:] if arguments is None else arguments))
    try:
        finetune(release.load(options.pop("model"), options.pop("mode")), **options)
    except (InputError, PretrainedError, FloatingPointError) as error:
        fail(error)


if __name__ == "__main__":
    main()
