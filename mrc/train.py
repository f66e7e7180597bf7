"""Train a reader on questions, with ELMo vectors or without.

    sh mrc/run.sh                                 # with ELMo from the checkpoint of `sh run.sh`, data of the project
    python -m mrc.train --train_data mrc/data/train.json --dev_data mrc/data/dev.json \\
        --pretrain_elmo_model_path checkpoints    # without this flag: the baseline
    python -m mrc.train … --load_dir auto         # resume after a kill
    python -m paddle.distributed.launch --nproc_per_node 2 "$(command -v python)" -m mrc.train …  # two processes

The loss is -log p(start) - log p(end) in nats, its mean over the questions of a batch; that of an epoch is the mean
over its batches. The dev scores are those of `mrc/evaluate.py`; --score says which decides.

Top to bottom: loss and score, set-up. The loop is in `elmo_chinese/training/loop.py`.
"""

import argparse
import hashlib
import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

if not __package__:  # typed as `cd mrc; python train.py`: the project is one folder up
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.training import session, task
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.layers import load_elmo, unknown_lines

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import load_encoder
from mrc import model as reading
from mrc.evaluate import format_scores
from mrc.model import Model
from mrc.network import Reader, costs, random_of
from mrc.options import LIMITS, SIZES, make_parser
from mrc.questions import Group, Limits, read, remarks


class Examples:
    """Groups of questions as the network gets them.

    Attributes:
        texts: see `task.keep_layers`. layers: of them; None without ELMo, or if they are computed anew each time.
    """

    def __init__(self, model: Model, groups: List[Group]):
        self.groups, self.encoded = groups, reading.encode(model, groups)
        self.questions = sum(len(group.questions) for group in groups)
        self.texts, self.layers = self.encoded.elmo, None


class Reading(task.Task):
    """What the reader is to the loop: an example is a group of questions on the same passages.

    Args:
        train, dev: groups; dev is None without --dev_data. test: the groups of --test_data.
        found: the checkpoint that the run is resumed from, None for a new run.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        model: Model,
        train: Examples,
        dev: Optional[Examples],
        test: List[Group],
        found: Optional[Checkpoint],
    ):
        self.model, self.train, self.dev, self.test = model, train, dev, test
        self.golds = [[question.gold for question in group.questions] for group in train.groups]
        batch_size = max(1, round(options.batch_size * len(train.groups) / train.questions))
        texts = fingerprint(train.groups), dev and fingerprint(dev.groups, options.score)
        super().__init__(options, model.reader, train.encoded.sizes, batch_size, *texts, found)

    def share_of_loss(self, batch: np.ndarray, mine: slice, step: int) -> paddle.Tensor:
        """Return a part of the negative log likelihood of where the answers are; see `Task.share_of_loss`."""
        # Padded to the width of the whole batch, so that random numbers do not depend on who has which share.
        encoded, before = self.train.encoded, batch[: mine.start]
        padded = reading.widths(encoded, batch)
        questions, passages = (
            sum(len(of_group[group]) for group in before) for of_group in (encoded.questions, encoded.passages)
        )
        random = random_of(self.options.random_seed, step, questions, passages)
        made = reading.make_batch(self.model, encoded, batch[mine], self.train.layers, padded)
        start, end = self.model.reader(made, random)
        asked = [gold for number in batch[mine] for gold in self.golds[number]]
        first, last = (
            paddle.to_tensor([gold.passage * padded[1] + at for gold, at in zip(asked, of_all)])
            for of_all in zip(*((gold.first, gold.last) for gold in asked))
        )
        return costs(start, end, first, last).sum() / sum(len(self.golds[number]) for number in batch)

    def predict_dev(self) -> np.ndarray:
        """Return where the dev answers are; see `Task.predict_dev`."""
        place = dist.get_rank(), dist.get_world_size()
        return reading.predict_spans(self.model, self.dev.encoded, self.dev.layers, *place)

    def score_dev(self, answers: np.ndarray) -> Tuple[float, Dict[str, float], Dict[str, float]]:
        """Return the score that --score names, with all others; see `Task.score_dev`."""
        groups = self.dev.groups
        scores = reading.score_answers(groups, reading.answers(groups, answers))._asdict()
        figures = {name: value for name, value in scores.items() if name != "questions"}
        return scores[self.options.score], figures, scores

    def describe_scores(self, figures: Dict[str, float]) -> str:
        """Return the dev figures of a pass as text."""
        return format_scores(figures)

    def score_test(self, folder: Path) -> Optional[str]:
        """Return the scores of a folder's model on --test_data, as text."""
        if not self.test:
            return None
        return format_scores(
            reading.score_answers(self.test, reading.predict(reading.load(folder), self.test))._asdict()
        )

    def model_content(self) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], str]:
        """Return what makes the model again; see `Task.model_content`."""
        return reading.model_info(self.model), reading.model_state(self.model), self.model.vocabulary.text


def fingerprint(groups: List[Group], which: str = "") -> str:
    """Return a digest of texts, questions, where their answers are, and which score decides."""
    digest = hashlib.sha256(which.encode("utf-8"))
    for group in groups:
        for text in group.passages:
            digest.update(" ".join(text.words).encode("utf-8"))
        for question in group.questions:
            gold = question.gold if question.gold else question.references
            digest.update(f"\n{question.id}\t{' '.join(question.text.words)}\t{gold}".encode("utf-8"))
    return digest.hexdigest()


def read_groups(options, paths: List[str], limits: Limits, to_train_on: bool = False) -> List[Group]:
    """Return the groups of files; say what is left out, cut, or found elsewhere."""
    found = read(paths, limits, to_train_on, options.on_bad_line)
    if dist.get_rank() == 0:
        for text in remarks(found):
            say(f"{'train' if to_train_on else 'held out'}: {text}")
    groups = reading.split_groups(found.groups)
    references = (text for group in groups for question in group.questions for text in question.references)
    if not to_train_on and not any(text.strip() for text in references):
        raise OptionError(f"{paths[0]}: no question has an answer to score against; mrc.predict answers questions")
    return groups


def make_model(options: argparse.Namespace, groups: List[Group], limits: Limits) -> Model:
    """Return a freshly initialised `Model` for groups to train on."""
    vocabulary = reading.build_vocabulary(groups, options.min_count)
    encoder, elmo_vocabulary = load_elmo(options, load_encoder, dropout=0, layer_norm=True)
    # After the biLM: its initial numbers must not shift those of the reader, which is to be compared without it.
    numbers = vocabulary.size * options.word_emb_dim + 78 * options.hidden_size**2
    session.check_memory(numbers, 3, "--word_emb_dim or --hidden_size")
    paddle.seed(options.random_seed)
    shape = {name: getattr(options, name) for name in SIZES}
    reader = Reader(
        vocabulary.size, **shape, dropout=options.dropout, elmo_dropout=options.elmo_dropout, encoder=encoder
    )
    return Model(reader, vocabulary, elmo_vocabulary, limits)


def set_up(parser: TrainingParser, arguments: List[str], options: argparse.Namespace, typed: Set[str]) -> Reading:
    """Make everything a run needs."""
    check = partial(task.check_resumable, entry="limits", kind=dict)
    found, options = session.checkpoint_to_resume(parser, arguments, options, "model_save_dir", check)
    if not options.train_data:
        raise OptionError("--train_data is missing; --help says what it takes")
    if found:
        elmo = dict(l2=options.elmo_l2_coef)
        model = reading.restore(found, elmo, dropout=options.dropout, elmo_dropout=options.elmo_dropout)
        groups = read_groups(options, options.train_data, model.limits, to_train_on=True)
    else:
        limits = Limits(*(getattr(options, name) for name in LIMITS))
        groups = read_groups(options, options.train_data, limits, to_train_on=True)
        model = make_model(options, groups, limits)
    train = Examples(model, groups)
    dev, test = (
        read_groups(options, paths, model.limits) if paths else [] for paths in (options.dev_data, options.test_data)
    )
    job = Reading(options, model, train, Examples(model, dev) if dev else None, test, found)
    hparams = dict(parser.compared(options), questions=train.questions)
    passages, asked = sum(len(group.passages) for group in groups), job.dev.questions if job.dev else 0
    text = f"text        {train.questions} questions on {passages} passages to train on, {asked} dev questions"
    ids = itertools.chain.from_iterable(train.encoded.elmo or [])
    lines = [text, *unknown_lines(ids, model.elmo_vocabulary, "(jieba's words)")]
    task.start(job, hparams, ["epoch/rouge_l", "epoch/f1"] if dev else ["epoch/loss"], found, lines)
    return job


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    with command():
        task.run(make_parser(__doc__), set_up, sys.argv[1:] if arguments is None else arguments)
    session.leave()


if __name__ == "__main__":
    main()
