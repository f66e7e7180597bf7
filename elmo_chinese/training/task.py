"""Training a task on the vectors of a frozen biLM: passes over its examples, a score after each, the best model kept.

`Task` is the `Job` of the loop for all tasks; what is a task's own, `lac/train.py` and `mrc/train.py` add to it.
"""

import argparse
import math
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from elmo_chinese.command import OptionError
from elmo_chinese.console import say
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.training import session
from elmo_chinese.training.batches import training_batches
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.layers import LayerCache, mix_figures
from elmo_chinese.training.loop import Batch, Progress, Result, progress_of, report_start, train
from elmo_chinese.training.metrics import MetricsLog

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

# What `checkpoint.json` must hold for a run to resume, besides what is of the task.
INFO = {"step": int, "flags": dict, "train_sha256": str}


class Task:
    """The `Job` of a task (`elmo_chinese/training/loop.py`); methods that only raise are the task's own.

    Args:
        options: flags; those of `elmo_chinese/training/task_options.py` among them.
        network: with `encoder` (an `ElmoEncoder` or None), `config` and `trained_parameters()`.
        lengths: of each example, int64: those of like length make a batch. batch_size: examples in a batch.
        train_text: checksum of the examples. dev_text: of the held-out ones and of what is measured on them, None
            without.
        found: the checkpoint that the run is resumed from, None for a new run.

    Attributes:
        train, dev: the task's own examples (dev: or None), with `texts` (see `keep_layers`) and their `layers`.
        progress: where the run starts.
        first_step: of the first epoch, had the batch size always been today's: 0 unless it was changed.

    Raises:
        OptionError: the checkpoint is of other examples.
    """

    max_grad_norm = math.inf
    evaluation, rate_flag = "epoch", "--base_learning_rate"
    memory_advice = "lower --batch_size"

    def __init__(
        self,
        options: argparse.Namespace,
        network: nn.Layer,
        lengths: np.ndarray,
        batch_size: int,
        train_text: str,
        dev_text: Optional[str],
        found: Optional[Checkpoint],
    ):
        self.options, self.root, self.patience = options, Path(options.model_save_dir), options.patience
        self.network, self.parameters = network, network.trained_parameters()
        self.optimizer = paddle.optimizer.Adam(options.base_learning_rate, parameters=self.parameters)
        self.lengths, self.batch_size, self.train_text, self.dev_text = lengths, batch_size, train_text, dev_text
        self.log: Optional[MetricsLog] = None
        network.train()
        if found:
            if train_text != found.info["train_sha256"]:
                raise OptionError(f"the training lines are not those of {found.path}; start a new run with other lines")
            contents.restore_optimizer(self.optimizer, network, found.optimizer, found.path / checkpoint.OPTIMIZER_FILE)
        session.wait_for_all()  # for one another's text
        if not found and dist.get_world_size() > 1:  # devices may draw other initial numbers from the same seed
            for parameter in self.parameters:
                dist.broadcast(parameter, src=0)
        self.progress = progress_of(found, dev_text)
        self.first_step = first_step(self.progress, len(lengths), batch_size, options.random_seed)
        self.steps_per_epoch = math.ceil(len(lengths) / batch_size)
        total = self.first_step + self.steps_per_epoch * options.max_epoch
        self.total_steps = min(total, options.num_iterations or total)

    # --- a task's own ---

    def share_of_loss(self, batch: np.ndarray, mine: slice, step: int) -> paddle.Tensor:
        """Return the loss of a part of a batch, in nats: what it adds to the mean over the whole batch.

        Args:
            batch: numbers of examples. mine: this process's part of them, not empty. step: those done before.
        """
        raise NotImplementedError

    def predict_dev(self) -> np.ndarray:
        """Return the answers on the held-out examples: this process's, and zero at those of the others."""
        raise NotImplementedError

    def score_dev(self, answers: np.ndarray) -> Tuple[float, Dict[str, float], Dict[str, float]]:
        """Return the score of all answers, figures for the log, and what `checkpoint.json` says of it."""
        raise NotImplementedError

    def describe_scores(self, figures: Dict[str, float]) -> str:
        """Return the figures of `score_dev` as text."""
        raise NotImplementedError

    def score_test(self, folder: Path) -> Optional[str]:
        """Return the scores of the model in a folder on --test_data, as text; None without."""
        raise NotImplementedError

    def model_content(self) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], str]:
        """Return what makes the model again: entries of `checkpoint.json`, arrays, text of the vocabulary."""
        raise NotImplementedError

    # --- what the loop needs ---

    def batches(self, progress: Progress) -> Iterator[Batch]:
        """Yield the batches from where the progress is, as numbers of examples, without end."""
        epoch, place = divmod(progress.step - self.first_step, self.steps_per_epoch)
        while True:
            for batch in training_batches(self.lengths, self.batch_size, self.options.random_seed, epoch)[place:]:
                yield Batch(batch, int(self.lengths[batch].sum()), len(batch))
            epoch, place = epoch + 1, 0

    def learning_rate(self, progress: Progress) -> float:
        """Return the learning rate of the next step."""
        return self.options.base_learning_rate

    def loss(self, batch: np.ndarray, states: None, step: int) -> Tuple[List[paddle.Tensor], None]:
        """Add the gradients of a batch, of which this process works on its share; see `Job.loss`."""
        rank, processes = dist.get_rank(), dist.get_world_size()
        bounds = len(batch) * np.arange(processes + 1) // processes
        mine, loss = slice(int(bounds[rank]), int(bounds[rank + 1])), paddle.zeros([])
        if len(batch[mine]):
            loss = self.share_of_loss(batch, mine, step - 1)
            loss.backward()
        sum_gradients(self.parameters)
        return [loss.detach() * processes], None

    def epoch(self, progress: Progress) -> float:
        """Return how often the examples were trained on."""
        return (progress.step - self.first_step) / self.steps_per_epoch

    def figures(self, loss: float, states: None) -> Dict[str, float]:
        """Return what a line of figures says."""
        return {"loss": loss}

    def is_evaluated(self, step: int) -> bool:
        """Say whether a step is the last of a pass, or of all."""
        return (step - self.first_step) % self.steps_per_epoch == 0 or step == self.total_steps

    is_saved = is_evaluated

    def evaluate(self, progress: Progress, states: None, asked: Callable[[], bool], watchdog) -> Result:
        """Score the held-out examples; the processes share the work."""
        loss = progress.pass_losses / progress.steps_since_evaluation
        figures = {"epoch": self.epoch(progress), "loss": loss, **mix_figures(self.network.encoder)}
        if self.dev_text is None:
            return Result(None, figures, None)
        self.network.eval()
        with watchdog.paused():
            answers = self.predict_dev()
        session.wait_for_all()
        score, more, dev = self.score_dev(shared(answers))
        self.network.train()
        return Result(score, {**figures, **more}, dev)

    def describe(self, figures: Dict[str, float]) -> str:
        """Return the figures of a pass as text."""
        last = math.ceil((self.total_steps - self.first_step) / self.steps_per_epoch)
        text = f"epoch {figures['epoch']:.4g}/{last}  loss {figures['loss']:.4f}"
        if self.dev_text is not None:
            text += f"  {self.describe_scores(figures)}"
        if "gamma" in figures:
            weights = " ".join(f"{value:.3f}" for name, value in figures.items() if name.startswith("mix_"))
            text += f"  mix {weights}, gamma {figures['gamma']:.3f}"
        return text

    def content(self, progress: Progress, states: None) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], str]:
        """Return what a checkpoint holds besides."""
        info, arrays, vocabulary = self.model_content()
        return {"train_sha256": self.train_text, **info}, arrays, vocabulary


def sum_gradients(parameters: Sequence[paddle.Tensor]) -> None:
    """Replace each gradient by the sum over all processes; one that has no examples this time adds nothing."""
    if dist.get_world_size() == 1:
        return
    gradients = [
        paddle.zeros(parameter.shape) if parameter.grad is None else parameter.grad for parameter in parameters
    ]
    flat = paddle.concat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, paddle.split(flat, [parameter.size for parameter in parameters])):
        if parameter.grad is None:
            (parameter * 0).sum().backward()
        parameter.grad.set_value(part.reshape(parameter.shape))


def shared(array: np.ndarray) -> np.ndarray:
    """Return the sum over all processes of an array of which each has filled a part."""
    if dist.get_world_size() == 1:
        return array
    tensor = paddle.to_tensor(array)
    dist.all_reduce(tensor)
    return tensor.numpy()


def first_step(progress: Progress, count: int, batch_size: int, seed: int) -> int:
    """Return the step at which the first epoch would have begun, had the batch size always been today's.

    What was trained on is counted in examples. Where the batch size was changed within an epoch, the examples of a
    batch that is begun are trained on again.

    Args:
        progress: "seen" is set to the examples of whole batches of today.
        count: of examples to train on. batch_size, seed: of `training_batches`.
    """
    epoch, done = divmod(progress.seen, count)
    ends = np.cumsum([len(batch) for batch in training_batches(np.zeros(count), batch_size, seed, epoch)])
    batches = int(np.searchsorted(ends, done, side="right"))
    progress.seen = epoch * count + (int(ends[batches - 1]) if batches else 0)
    return progress.step - epoch * len(ends) - batches


def check_resumable(found: Checkpoint, entry: str, kind: type) -> None:
    """Raise `CheckpointError` if no run of a task can resume from a checkpoint.

    Args:
        entry, kind: what stands in `checkpoint.json` of this task alone.
    """
    contents.check_kind(found, entry)
    contents.check_info(found, {**INFO, entry: kind})
    contents.progress_of(found, Progress)


def start(task: Task, hparams: Dict[str, Any], curves: List[str], found: Optional[Checkpoint], text: List[str]) -> None:
    """Open the log of a task that is about to be trained, say what it is, and compute the ELMo layers of its texts.

    Args:
        hparams, curves: see `MetricsLog`. text: lines that say what the examples are.
    """
    if dist.get_rank() == 0:
        hparams = dict(hparams, elmo=task.network.encoder is not None)
        task.log = MetricsLog(task.root / "log", checkpoint.run_of(task.root), task.progress.step, hparams, curves)
        report_start(task, found, task.progress, describe_start(task, text))
    for part, name in ((task.train, "train"), (task.dev, "dev")):  # takes long, so it comes after the report
        if part:
            part.layers = keep_layers(task, part.texts, name)


def describe_start(task: Task, text: List[str]) -> List[str]:
    """Return the lines that say what is about to be trained."""
    options, network = task.options, task.network
    trained = sum(parameter.size for parameter in task.parameters)
    frozen = sum(parameter.size for parameter in network.parameters()) - trained
    lines = [f"network     {', '.join(f'{name} {size}' for name, size in network.config.items())}"]
    if network.encoder:
        cache = f"layers kept as {options.elmo_cache}" if options.elmo_cache != "off" else "layers computed each time"
        sizes = ", ".join(f"{name} {size}" for name, size in network.encoder.config.items())
        lines.append(f"ELMo        {sizes}; {cache}")
    lines += [f"parameters  {trained:,} trained, {frozen:,} frozen", *text]
    lines.append(f"steps       up to {task.total_steps} ({task.steps_per_epoch} an epoch), seed {options.random_seed}")
    return lines


def keep_layers(task: Task, texts: Optional[List[List[np.ndarray]]], name: str) -> Optional[LayerCache]:
    """Return the ELMo layers of texts, computed and kept in the run's folder; None without ELMo or --elmo_cache.

    Args:
        texts: the sentences of each text as the biLM's word ids, None without ELMo. name: of the texts.
    """
    if texts is None or task.options.elmo_cache == "off":
        return None
    # Its name is this run's alone, so that it may be written over where a killed one left it.
    path = task.root / f"elmo_layers.{name}.{checkpoint.run_of(task.root)[:8]}.tmp"
    return LayerCache(task.network.encoder, texts, path, task.options.elmo_cache)


def run(
    parser: TrainingParser,
    set_up: Callable[[TrainingParser, List[str], argparse.Namespace, Set[str]], Task],
    arguments: List[str],
) -> None:
    """Train by flags, as from the command line, while no other run has the folder; errors are raised.

    Args:
        set_up: makes everything a run needs, from the parser, the arguments and what `TrainingParser.parse` returns.
    """
    options, typed = parser.parse(arguments)
    with checkpoint.only_run(options.model_save_dir, "--model_save_dir"):
        session.choose_device(options.use_gpu)
        task = set_up(parser, arguments, options, typed)
        done = train(task, task.progress)
        test = task.score_test(checkpoint.resolve(task.root)) if done and task.log else None
        if test:
            say(f"test        {test}")
        if task.log:
            task.log.close()
