"""Pretrain the bidirectional language model.

    sh run.sh                                     # set-up, then this with the data/ of the project
    python train.py --train_path 'data/train/*' --test_path 'data/dev/*' \\
        --vocab_path data/vocabulary.txt          # one process; on CPU add small sizes
    CPU_NUM=2 sh run.sh                           # two processes on CPU
    CUDA_VISIBLE_DEVICES=0,1,2,3 sh run.sh        # four GPUs
    python train.py … --load_dir auto             # resume after a kill; run.sh always does

Top to bottom: loss and evaluation, then what `main` does: options, device, data, model, resuming. The loop is in
`elmo_chinese/training/loop.py`.
"""

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from elmo_chinese.command import OptionError, command
from elmo_chinese.console import say, size_text
from elmo_chinese.network.gradients import SPARSE, data_parallel, make_optimizer, share_row_gradients
from elmo_chinese.network.precision import why_no_bfloat16
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import Checkpoint, CheckpointError
from elmo_chinese.storage.pretrained import bilm_numbers, load_pretrained, rows_by_name
from elmo_chinese.text.vocabulary import Vocabulary, note_path, read_note, unknown_share
from elmo_chinese.training import loop, session
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.loop import Batch, Progress, Result
from elmo_chinese.training.metrics import MetricsLog, describe, perplexity
from elmo_chinese.training.options import make_parser
from elmo_chinese.training.states import (
    cells_at_clip,
    evaluate,
    gather_states,
    reset_rows,
    warn_of_zero_state,
    zero_state_ratio,
)

import numpy as np
import paddle
import paddle.distributed as dist

from bilm import BiLM, StepRandom
from reader import BidirectionalReader

# What `checkpoint.json` must hold for a run to resume.
INFO = {"step": int, "flags": dict, "rows": int, "vocabulary_sha256": str, "vocabulary_size": int}
COPIES = {"sgd": 1, "adagrad": 2, "adam": 3, "rmsprop": 4}  # of each parameter: its value and what is kept of it
States = Tuple[paddle.Tensor, paddle.Tensor]  # hidden and cell, see `BiLSTM`
MOST_ROWS = 65_535  # of a row-sparse update on a GPU: Paddle starts a block for each, along an axis that has no more
LOOKED_AT = 100_000  # words of the text, to tell whether the vocabulary is one of it


class Pretraining:
    """The language model in the loop (`loop.Job`). State is that of the LSTMs of this process's rows.

    Args:
        lm: the language model. optimizer: of its parameters.
        train_reader, dev_reader: of the texts, for this process; the second is None without --test_path.
    """

    evaluation, rate_flag, patience = "dev", "--learning_rate", math.inf
    memory_advice = "lower --batch_size, and raise --accumulate as much to keep the global batch"

    def __init__(
        self,
        options: argparse.Namespace,
        lm: BiLM,
        optimizer: paddle.optimizer.Optimizer,
        train_reader: BidirectionalReader,
        dev_reader: Optional[BidirectionalReader],
    ):
        self.options, self.root, self.max_grad_norm = options, Path(options.para_save_dir), options.max_grad_norm
        self.network, self.parameters, self.optimizer = lm, lm.parameters(), optimizer
        session.wait_for_all()  # for one another's text
        self.model = data_parallel(lm) if dist.get_world_size() > 1 else lm
        self.train_reader, self.dev_reader = train_reader, dev_reader
        self.vocabulary = train_reader.vocabulary
        self.words_per_step = train_reader.rows * options.num_steps
        self.total_steps, self.dev_text = 0, dev_reader and dev_reader.corpus
        self.log: Optional[MetricsLog] = None
        self.dev: Optional[Dict[str, float]] = None  # what was found on the dev text last

    def batches(self, progress: Progress) -> Iterator[Batch]:
        """Yield batches from the reader's position: x, y, x_reverse, y_reverse, int64 `[rows, steps]`."""
        for batch in self.train_reader:
            yield Batch(batch, self.words_per_step, self.words_per_step)

    def words_at_end(self, progress: Progress) -> int:
        """Return the words that will have been trained on after the last step."""
        return progress.seen + (self.total_steps - progress.step) * self.words_per_step

    def learning_rate(self, progress: Progress) -> float:
        """Return the learning rate of the next step."""
        if self.options.lr_schedule == "constant":
            return self.options.learning_rate
        words = self.words_at_end(progress)
        return self.options.learning_rate * (words - progress.seen) / words

    def loss(
        self, batch: Sequence[np.ndarray], states: Optional[States], step: int
    ) -> Tuple[List[paddle.Tensor], States]:
        """Add the gradients of a batch: --accumulate equal parts of its rows, one after the other.

        Args:
            batch: x, y, x_reverse, y_reverse of this process, int64 `[rows, steps]`.
            states: of all rows of this process, or None for zeros.
            step: from 1; with the seed, it decides on dropout and negative samples.

        Returns:
            the mean token losses of the parts, in nats, each divided by their number; the detached states.
        """
        options, model = self.options, self.model
        random = StepRandom(options.random_seed, step, self.train_reader.first_row)
        states = reset_rows(states, options.reset_states, random)
        part = len(batch[0]) // options.accumulate
        losses, new_states = [], []
        for number in range(options.accumulate):
            mine = slice(number * part, (number + 1) * part)
            inputs = [paddle.to_tensor(array[mine]) for array in batch]
            part_states = None if states is None else (states[0][:, mine], states[1][:, mine])
            part_random = random._replace(first_row=random.first_row + mine.start)
            # Gradients are averaged over processes once, with the last part; the forward pass arms that.
            alone = number < options.accumulate - 1 and isinstance(model, paddle.DataParallel)
            with model.no_sync() if alone else contextlib.nullcontext():
                forward_losses, backward_losses, after = model(*inputs, part_states, part_random)
                loss = (forward_losses + backward_losses).mean() / (2 * options.accumulate)
                (loss * options.num_steps).backward()  # the original's loss is a sum over the steps
            losses.append(loss.detach())
            new_states.append(after)
        if isinstance(model, paddle.DataParallel):
            share_row_gradients(self.parameters)
        if len(new_states) == 1:
            return losses, new_states[0]
        return losses, tuple(paddle.concat(parts, axis=1) for parts in zip(*new_states))

    def epoch(self, progress: Progress) -> float:
        """Return how often the text was trained on."""
        return progress.seen / self.train_reader.tokens_per_epoch

    def figures(self, loss: float, states: States) -> Dict[str, float]:
        """Return what a line of figures says; a sampled loss has no perplexity."""
        losses = dict(loss=loss, perplexity=perplexity(loss))
        if self.options.sample_softmax:
            losses = dict(sampled_loss=loss)
        return {**losses, "cells_at_clip": cells_at_clip(states, self.options.cell_clip)}

    def is_evaluated(self, step: int) -> bool:
        """Say whether an evaluation follows a step."""
        return self.dev_reader is not None and (step % self.options.dev_interval == 0 or step == self.total_steps)

    def is_saved(self, step: int) -> bool:
        """Say whether a checkpoint follows a step."""
        return step % self.options.save_interval == 0

    def evaluate(self, progress: Progress, states: States, asked: Callable[[], bool], watchdog) -> Optional[Result]:
        """Measure the dev text; the score is the geometric mean of its words' probabilities, 1 / perplexity."""
        dev = evaluate(self.model, self.dev_reader, self.vocabulary.unknown, asked)
        if dev is None:
            return None
        dev["zero_state_ratio"] = zero_state_ratio(self.model, self.dev_reader, states)
        if self.log:
            warn_of_zero_state(dev["zero_state_ratio"], self.options.reset_states)
        self.dev = dev
        return Result(1 / dev["perplexity"], dev, dev)

    def describe(self, figures: Dict[str, float]) -> str:
        """Return the figures of an evaluation as text."""
        return f"dev {describe(figures)}"

    def content(self, progress: Progress, states: States) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], str]:
        """Return what a checkpoint holds besides: among the arrays, the states of all rows of the global batch."""
        info = {
            "tokens": progress.seen,
            "model": self.network.lstm.config,
            "optim": self.options.optim,
            "rows": self.train_reader.rows,
            "vocabulary_size": self.vocabulary.size,
            "vocabulary_sha256": self.vocabulary.sha256,
            "segmenter": self.vocabulary.note,
        }
        return info, {**self.train_reader.state_dict(), **gather_states(states)}, self.vocabulary.text


def check_resumable(found: Checkpoint) -> None:
    """Raise `CheckpointError` if no run of this program can resume from a checkpoint."""
    contents.check_kind(found, "rows")
    contents.check_info(found, INFO)


def load_vocabulary(options: argparse.Namespace, found: Optional[Checkpoint]) -> Vocabulary:
    """Return the vocabulary that was asked for, or the checkpoint's own."""
    if not options.vocab_path:
        raise OptionError("--vocab_path is missing; make a vocabulary with: python preprocess.py vocabulary")
    vocabulary = Vocabulary(options.vocab_path)
    if found and vocabulary.note is None:
        vocabulary.note = read_note(note_path(found.path / checkpoint.VOCABULARY_FILE))
    if found and found.info["vocabulary_sha256"] != vocabulary.sha256:
        raise OptionError(
            f"{options.vocab_path} ({vocabulary.size} words) is not the vocabulary of {found.path} "
            f"({found.info['vocabulary_size']} words); use {found.path / checkpoint.VOCABULARY_FILE}"
        )
    if options.visualdl_embeddings > vocabulary.size - 3:
        raise OptionError(
            f"--visualdl_embeddings {options.visualdl_embeddings} is more than the {vocabulary.size - 3} words of "
            f"{options.vocab_path} besides <S>, </S> and <UNK>; lower it"
        )
    return vocabulary


def make_readers(
    options: argparse.Namespace, vocabulary: Vocabulary
) -> Tuple[BidirectionalReader, Optional[BidirectionalReader]]:
    """Return the readers of training and held-out text; the second is None if there is none."""
    if not options.train_path:
        raise OptionError("--train_path is missing; --help says what it takes")
    place = dict(rank=dist.get_rank(), world_size=dist.get_world_size())
    place.update(cache_dir=options.cache_dir, verify=options.verify_cache)
    rows = options.batch_size * options.accumulate
    order = dict(shuffle=options.shuffle, seed=options.random_seed)
    train = BidirectionalReader(options.train_path, vocabulary, rows, options.num_steps, **order, **place)
    if not options.test_path:
        return train, None
    return train, BidirectionalReader(options.test_path, vocabulary, rows, options.num_steps, **place)


def make_model(options: argparse.Namespace, vocabulary: Vocabulary) -> BiLM:
    """Return a freshly initialised `BiLM`."""
    if options.sample_softmax and options.n_negative_samples_batch > vocabulary.size:
        raise OptionError(
            f"--n_negative_samples_batch {options.n_negative_samples_batch} is more than the {vocabulary.size} words "
            "of the vocabulary; lower it, or leave out --sample_softmax"
        )
    if options.precision == "bfloat16" and why_no_bfloat16():
        raise OptionError(f"--precision bfloat16 cannot be had: {why_no_bfloat16()}; leave it out")
    sizes = vocabulary.size, options.embed_size, options.hidden_size, options.num_layers
    parameters = bilm_numbers(*sizes) + vocabulary.size * (options.embed_size + 1)
    session.check_memory(parameters, COPIES[options.optim], "--hidden_size, --embed_size or --num_layers")
    paddle.seed(options.random_seed)
    return BiLM(
        *sizes,
        options.cell_clip,
        options.proj_clip,
        options.dropout,
        options.n_negative_samples_batch if options.sample_softmax else 0,
        sparse=options.optim in SPARSE and (paddle.device.get_device() == "cpu" or vocabulary.size <= MOST_ROWS),
        precision=options.precision,
    )


def count_steps(job: Pretraining, progress: Progress) -> int:
    """Return the number of the last step, from the words that are counted and those that were trained on already."""
    options, tokens = job.options, job.train_reader.tokens_per_epoch
    if tokens < job.words_per_step:
        raise OptionError(
            f"the training text has {tokens} words, less than one batch of {job.train_reader.rows} rows × "
            f"{options.num_steps} words; lower --batch_size or --num_steps, or bring more"
        )
    if options.all_train_tokens:
        words = tokens - len(job.train_reader.text.starts) + 1  # as the original counts, without the ends of sentences
        if not 0.99 * words <= options.all_train_tokens <= 1.01 * tokens:
            say(
                f"warning: --all_train_tokens {options.all_train_tokens}, but {words} words were counted, {tokens} "
                "with the ends of sentences"
            )
        tokens = options.all_train_tokens
    left = math.ceil(options.max_epoch * tokens) - progress.seen
    return progress.step + max(-(-left // job.words_per_step), 0 if progress.step else 1)


def restore(found: Checkpoint, job: Pretraining) -> States:
    """Put everything back to where a checkpoint was; return the states of this process's rows."""
    options, lm, reader, where = job.options, job.network, job.train_reader, found.path
    reader.load_state_dict(found.state)
    layers = 2 * options.num_layers
    shapes = {"hidden": [layers, reader.rows, options.embed_size], "cell": [layers, reader.rows, options.hidden_size]}
    states = {name: found.state[name] for name in shapes if name in found.state}
    contents.check_arrays(shapes, states, where / checkpoint.STATE_FILE)
    shapes = {name: parameter.shape for name, parameter in lm.state_dict().items()}
    contents.check_arrays(shapes, found.model, where / checkpoint.MODEL_FILE)
    lm.set_state_dict(found.model)
    contents.restore_optimizer(job.optimizer, lm, found.optimizer, where / checkpoint.OPTIMIZER_FILE)
    mine = slice(reader.first_row, reader.first_row + reader.batch_size)
    return tuple(paddle.to_tensor(found.state[name][:, mine]) for name in ("hidden", "cell"))


def describe_start(job: Pretraining, progress: Progress) -> List[str]:
    """Return the lines that say what is about to be trained, and for how long."""
    options, reader, vocabulary = job.options, job.train_reader, job.vocabulary
    parameters = sum(parameter.size for parameter in job.parameters)
    # Of a step the backward pass keeps gates, cells and hidden states of each word and layer.
    activations = options.batch_size * options.num_steps * options.num_layers
    activations *= 16 * options.hidden_size + 8 * options.embed_size
    memory = size_text(4 * (parameters * (1 + COPIES[options.optim]) + activations))
    softmax = f"sampled, {options.n_negative_samples_batch} negatives" if options.sample_softmax else "full"
    at_end = job.words_at_end(progress) / reader.tokens_per_epoch
    lines = [
        f"network     {options.num_layers} layers, embed {options.embed_size}, hidden {options.hidden_size}, "
        f"vocabulary {vocabulary.size}, softmax {softmax}",
        f"parameters  {parameters:,} (about {memory} of memory with gradients, optimizer and activations)",
        f"text        {reader.tokens_per_epoch:,} words an epoch in {len(reader.text.files)} files"
        + (f", going on in file {int(reader.state_dict()['position'][1]) + 1}" if progress.step else ""),
        f"steps       {progress.step} → {job.total_steps} of {reader.rows} rows × {options.num_steps} words "
        f"({at_end:.2f} epochs), seed {options.random_seed}",
    ]
    words = np.asarray(reader.text.tokens[:LOOKED_AT])
    words = words[(words != vocabulary.start) & (words != vocabulary.end)]
    advice = (
        f"is {options.vocab_path} of other text? preprocess.py vocabulary makes one of this text, "
        "preprocess.py sentences --cutter cuts text along its words"
    )
    lines.append("unknown     " + unknown_share(int((words == vocabulary.unknown).sum()), len(words), advice))
    return lines


def set_up(
    arguments: List[str], parser: TrainingParser, options: argparse.Namespace, typed: Set[str]
) -> Tuple[Pretraining, Progress, Optional[States]]:
    """Make everything a run needs; return it, and progress and states to start the loop with."""
    session.choose_device(options.use_gpu)
    found, options = session.checkpoint_to_resume(parser, arguments, options, "para_save_dir", check_resumable)
    if found:
        session.keep_rows(options, typed, found)
    vocabulary = load_vocabulary(options, found)
    train_reader, dev_reader = make_readers(options, vocabulary)
    if found:  # before memory is set aside for these sizes
        numbers = bilm_numbers(vocabulary.size, options.embed_size, options.hidden_size, options.num_layers)
        if numbers > sum(array.size for array in found.model.values()):
            raise CheckpointError(
                f"{found.path}: {contents.MODEL_FILE} is too small for the sizes in {contents.INFO_FILE}"
            )
    lm = make_model(options, vocabulary)
    optimizer = make_optimizer(options.optim, options.learning_rate, lm.parameters())
    if options.load_pretraining_params and not found:
        path = options.load_pretraining_params
        load_pretrained(lm, path, rows_by_name(path, vocabulary, options.pretraining_vocab_path or None))
    job = Pretraining(options, lm, optimizer, train_reader, dev_reader)
    progress = loop.progress_of(found, job.dev_text)
    progress.evaluation_due = progress.evaluation_due and dev_reader is not None
    job.total_steps = count_steps(job, progress)
    states = restore(found, job) if found else None
    if found and found.info.get("dev_text") == job.dev_text:
        job.dev = found.info["dev"]
    if dist.get_rank() == 0:
        hparams = dict(parser.compared(options), global_batch=train_reader.rows, vocabulary_size=vocabulary.size)
        curve = "train/sampled_loss" if options.sample_softmax else "train/loss"
        curves = ["dev/perplexity" if dev_reader else curve]
        job.log = MetricsLog(job.root / "log", checkpoint.run_of(job.root), progress.step, hparams, curves)
        loop.report_start(job, found, progress, describe_start(job, progress))
    return job, progress, states


def main(arguments: Optional[List[str]] = None) -> None:
    """Run from the command line; user errors end with a message and exit code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with command():
        parser = make_parser(__doc__)
        options, typed = parser.parse(arguments)
        with checkpoint.only_run(options.para_save_dir, "--para_save_dir"):
            job, progress, states = set_up(arguments, parser, options, typed)
            done = loop.train(job, progress, states)
            if job.log:
                if done and job.dev:
                    say(f"dev        {describe(job.dev)}")
                if job.options.visualdl_embeddings:
                    job.log.write_vectors(job.vocabulary, job.network.lstm.embedding, job.options.visualdl_embeddings)
                job.log.close()
    session.leave()


if __name__ == "__main__":
    main()
