"""Train a reader on questions, with ELMo vectors or without.

    sh mrc/run.sh                                 # with ELMo from the checkpoint of `sh run.sh`, data of the project
    python -m mrc.train --train_data mrc/data/train.json --dev_data mrc/data/dev.json \\
        --pretrain_elmo_model_path checkpoints    # without this flag: the baseline
    python -m mrc.train … --load_dir auto         # resume after a kill
    python -m paddle.distributed.launch --nproc_per_node 2 "$(command -v python)" -m mrc.train …  # two processes

The loss is -log p(start) - log p(end) in nats, its mean over the questions of a batch; that of an epoch is the mean
over its batches. The dev scores are those of `mrc/evaluate.py`; --score says which decides.

Top to bottom: examples, cost and score, set-up. The loop is in `elmo_chinese/training/task.py`.
"""

import argparse
import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Set, Tuple

from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say
from elmo_chinese.storage import checkpoint
from elmo_chinese.training import session, task, task_run
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.layers import LayerCache
from elmo_chinese.training.metrics import MetricsLog
from elmo_chinese.training.session import choose_device
from elmo_chinese.training.task import Result, Task

import paddle
import paddle.distributed as dist

from bilm import load_encoder
from mrc import model as reading
from mrc.evaluate import describe
from mrc.model import Encoded, Model
from mrc.network import Reader, costs, random_of
from mrc.options import SIZES, make_parser
from mrc.questions import Group, Limits, read, remarks


class Examples(NamedTuple):
    """Groups as the network gets them."""

    groups: List[Group]
    encoded: Encoded
    layers: Optional[LayerCache]  # None without ELMo, or if they are to be computed anew


def with_layers(
    model: Model, groups: List[Group], encoded: Encoded, options: argparse.Namespace, name: str
) -> Examples:
    """Return `Examples`; computes the ELMo layers of all texts."""
    layers = task_run.keep_layers(options, model.reader.encoder, encoded.elmo, name)
    return Examples(groups, encoded, layers)


def make_cost(model: Model, train: Examples, seed: int) -> Callable:
    """Return `Task.cost`: an example is a group."""
    encoded = train.encoded
    golds = [[question.gold for question in group.questions] for group in train.groups]

    def cost(batch, mine, step):
        # Padded to the width of the whole batch, so that random numbers do not depend on who has which share.
        padded = reading.widths(encoded, batch)
        before = batch[: mine.start]
        random = random_of(
            seed,
            step,
            sum(len(encoded.questions[group]) for group in before),
            sum(len(encoded.passages[group]) for group in before),
        )
        start, end = model.reader(reading.make_batch(model, encoded, batch[mine], train.layers, padded), random)
        asked = [gold for number in batch[mine] for gold in golds[number]]
        first, last = (
            paddle.to_tensor([gold.passage * padded[1] + at for gold, at in zip(asked, of_all)])
            for of_all in zip(*((gold.first, gold.last) for gold in asked))
        )
        return costs(start, end, first, last).sum() / sum(len(golds[number]) for number in batch)

    return cost


def make_evaluate(model: Model, dev: Examples, which: str) -> Callable[[], Result]:
    """Return `Task.evaluate`; the processes share the work."""

    def evaluate():
        spans = reading.predict_spans(model, dev.encoded, dev.layers, dist.get_rank(), dist.get_world_size())
        scores = reading.score_answers(dev.groups, reading.answers(dev.groups, task.shared(spans)))
        figures = scores._asdict()
        return Result(figures[which], {name: figures[name] for name in figures if name != "questions"}, figures)

    return evaluate


def fingerprint(groups: List[Group], which: str = "rouge_l") -> str:
    """Return a digest of texts, questions, where their answers are, and which score decides."""
    digest = hashlib.sha256(b"" if which == "rouge_l" else which.encode("utf-8"))  # once there was nothing of it
    for group in groups:
        for text in group.passages:
            digest.update(" ".join(text.words).encode("utf-8"))
        for question in group.questions:
            gold = question.gold if question.gold else question.references
            digest.update(f"\n{question.id}\t{' '.join(question.text.words)}\t{gold}".encode("utf-8"))
    return digest.hexdigest()


def dev_digest(dev: List[Group], options: argparse.Namespace, progress: task.Progress, before: Optional[str]) -> str:
    """Return `Task.dev_sha256`; that of a run which goes on from before it said which score decides stays as it was.

    Args:
        before: which score decided in the checkpoint that the run goes on from, None: there is none.
    """
    older, scored = fingerprint(dev), progress.best_score is not None
    if scored and before == options.score and progress.best_on in (None, older):
        return older
    return fingerprint(dev, options.score)


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
    encoder, elmo_vocabulary = task_run.load_elmo(options, load_encoder, dropout=0, layer_norm=True)
    # After the biLM: its initial numbers must not shift those of the reader, which is to be compared without it.
    paddle.seed(options.random_seed)
    shape = {name: getattr(options, name) for name in SIZES}
    reader = Reader(
        vocabulary.size, **shape, dropout=options.dropout, elmo_dropout=options.elmo_dropout, encoder=encoder
    )
    return Model(reader, vocabulary, elmo_vocabulary, limits)


def set_up(
    parser: TrainingParser, arguments: List[str], options: argparse.Namespace, given: Set[str]
) -> Tuple[Task, task.Progress]:
    """Make everything a run needs; return the `Task` and the progress to start the loop with."""
    device = choose_device(options.use_gpu)
    check = partial(task.check, entry="limits", kind=dict)
    found, options = session.checkpoint_to_resume(parser, arguments, options, "model_save_dir", check)
    if not options.train_data:
        raise OptionError("--train_data is missing; --help says what it takes")
    if found:
        elmo = dict(l2=options.elmo_l2_coef)
        model = reading.restore(found, elmo, dropout=options.dropout, elmo_dropout=options.elmo_dropout)
        groups = read_groups(options, options.train_data, model.limits, to_train_on=True)
    else:
        limits = Limits(options.max_passage_len, options.max_question_len, options.max_answer_len)
        groups = read_groups(options, options.train_data, limits, to_train_on=True)
        model = make_model(options, groups, limits)
    dev = read_groups(options, options.dev_data, model.limits) if options.dev_data else None
    reader, digest = model.reader, fingerprint(groups)
    reader.train()
    optimizer = paddle.optimizer.Adam(options.base_learning_rate, parameters=reader.trained_parameters())
    progress = task.restore_training(optimizer, reader, found, digest)
    questions = sum(len(group.questions) for group in groups)
    log = None
    if dist.get_rank() == 0:
        hparams = dict(parser.compared(options), elmo=reader.encoder is not None, questions=questions)
        compared = ["epoch/rouge_l", "epoch/f1"] if dev else ["epoch/loss"]
        root = Path(options.model_save_dir)
        log = MetricsLog(root / "log", checkpoint.run_of(root), progress.step, hparams, compared)
    encoded = reading.encode(model, groups)
    batch_size = max(1, round(options.batch_size * len(groups) / questions))
    training = Task(
        options=options,
        network=reader,
        optimizer=optimizer,
        lengths=encoded.sizes,
        batch_size=batch_size,
        cost=None,
        evaluate=None,
        describe=describe,
        parts=(reading.model_info(model), reading.model_state(model), model.vocabulary.text),
        train_sha256=digest,
        dev_sha256=dev_digest(dev, options, progress, found and found.info["flags"].get("score")) if dev else None,
        log=log,
        first_step=task.first_step(progress, len(groups), batch_size, options.random_seed, found),
    )
    if log:
        asked = sum(len(group.questions) for group in dev or ())
        passages = sum(len(group.passages) for group in groups)
        text = f"{questions} questions on {passages} passages to train on, {asked} dev questions"
        task_run.report_start(training, device, reader.config, found, text)
    # What takes long comes after the report.
    cost = make_cost(model, with_layers(model, groups, encoded, options, "train"), options.random_seed)
    evaluate = None
    if dev:
        held_out = with_layers(model, dev, reading.encode(model, dev), options, "dev")
        evaluate = make_evaluate(model, held_out, options.score)
    return training._replace(cost=cost, evaluate=evaluate), progress


def score(options: argparse.Namespace, folder: Path) -> str:
    """Return the scores of a folder's model on --test_data, as text."""
    model = reading.load(folder)
    groups = read_groups(options, options.test_data, model.limits)
    return describe(reading.score_answers(groups, reading.predict(model, groups))._asdict())


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    with command():
        task_run.run(make_parser(__doc__), set_up, score, sys.argv[1:] if arguments is None else arguments)
    session.leave()


if __name__ == "__main__":
    main()
