"""Training a task on the vectors of a frozen biLM: passes over its examples, a score after each, the best model kept.

What a task is made of (network, examples, cost, score) is in `Task`; the rest is the same for all of them. Top to
bottom: one step, checkpoints, the end of a pass, the loop. What stands around it is in `task_run.py`.
"""

import argparse
import math
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from elmo_chinese.command import OptionError
from elmo_chinese.console import duration, say, show_progress
from elmo_chinese.network.gradients import all_reduce_sum, gradient_norm
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint, Score
from elmo_chinese.training.batches import training_batches
from elmo_chinese.training.layers import mix_figures
from elmo_chinese.training.metrics import MetricsLog, StepClock
from elmo_chinese.training.session import StopRequest, TrainingError, kept, versions

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

# What `checkpoint.json` must hold for a run to resume, besides what is of the task.
INFO = {"step": int, "flags": dict, "train_sha256": str}


@dataclass
class Progress:
    """What the loop carries from step to step, besides parameters and optimizer.

    Attributes:
        step: steps done. examples: how many were trained on; None in checkpoints of before they were counted.
        best_score: of the passes so far. epochs_since_best: passes since then.
        best_on: `Task.dev_sha256` of that score; None if there is none, or in checkpoints of before it was noted.
        costs: sum over the steps since the last pass, in nats.
    """

    step: int = 0
    examples: Optional[int] = 0
    best_score: Optional[float] = None
    epochs_since_best: int = 0
    costs: float = 0.0
    steps_since_epoch: int = 0
    best_on: Optional[str] = None


class Result(NamedTuple):
    """What an evaluation found: the score that decides, figures for the log, and what `checkpoint.json` says of it."""

    score: float
    figures: Dict[str, float]
    dev: Dict[str, float]


class Task(NamedTuple):
    """What stays the same from the first step to the last.

    Attributes:
        options: flags; those of `elmo_chinese/training/task_options.py` among them.
        network: with `encoder` (an `ElmoEncoder` or None) and `trained_parameters()`.
        lengths: of each example, int64: those of like length make a batch. batch_size: examples in a batch.
        cost: function of a batch (numbers of examples), of the part of it that is this process's (a slice), and of the
            step → that part's share of the mean cost of the batch, in nats.
        evaluate: function → `Result` on the held-out examples; None if there are none.
        describe: function of figures → text, for the line of a pass.
        parts: what a checkpoint holds besides: entries of `checkpoint.json`, arrays, text of the vocabulary.
        train_sha256: of the examples. dev_sha256: of the held-out ones, and of what is measured on them.
        log: of the first process.
        first_step: of the first epoch, had the batch size always been today's: 0 unless it was changed.
    """

    options: argparse.Namespace
    network: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    lengths: np.ndarray
    batch_size: int
    cost: Callable[[np.ndarray, slice, int], paddle.Tensor]
    evaluate: Optional[Callable[[], Result]]
    describe: Callable[[Dict[str, float]], str]
    parts: Tuple[Dict[str, Any], Dict[str, np.ndarray], str]
    train_sha256: str
    dev_sha256: Optional[str]
    log: Optional[MetricsLog]
    first_step: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def total_steps(self) -> int:
        total = self.first_step + self.steps_per_epoch * self.options.max_epoch
        return min(total, self.options.num_iterations or total)

    @property
    def last_epoch(self) -> int:
        return math.ceil(self.epoch(self.total_steps))

    def epoch(self, step: int) -> float:
        """Return how often the examples were trained on when so many steps are done."""
        return (step - self.first_step) / self.steps_per_epoch


# --- one step ---


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


def train_step(task: Task, batch: np.ndarray, step: int, stop: bool = False) -> Tuple[float, bool]:
    """Do one update on the examples `batch` (numbers), of which this process works on its share.

    Returns:
        `(cost, stop)`: the mean cost of the whole batch, in nats, and whether any process was asked to stop.

    Raises:
        TrainingError: the cost or a gradient is not finite; the parameters are as they were before the step.
    """
    bounds = len(batch) * np.arange(dist.get_world_size() + 1) // dist.get_world_size()
    mine, total = slice(int(bounds[dist.get_rank()]), int(bounds[dist.get_rank() + 1])), 0.0
    if len(batch[mine]):
        cost = task.cost(batch, mine, step)
        cost.backward()
        total = float(cost)
    total, asked = all_reduce_sum([total, float(stop)])
    parameters = task.network.trained_parameters()
    sum_gradients(parameters)
    norm = gradient_norm(parameters)
    if not (math.isfinite(total) and math.isfinite(norm)):
        task.optimizer.clear_grad()
        raise TrainingError(f"loss is {total}, gradient norm is {norm}")
    task.optimizer.step()
    task.optimizer.clear_grad()
    return total, asked > 0


def shared(array: np.ndarray) -> np.ndarray:
    """Return the sum over all processes of an array of which each has filled a part."""
    if dist.get_world_size() == 1:
        return array
    tensor = paddle.to_tensor(array)
    dist.all_reduce(tensor)
    return tensor.numpy()


# --- checkpoints ---


def save_checkpoint(task: Task, progress: Progress, result: Optional[Result]) -> None:
    """Write everything a resumed run and a prediction need; the first process writes."""
    if dist.get_rank() == 0:
        info, state, vocabulary = task.parts
        info = {
            "step": progress.step,
            "epoch": task.epoch(progress.step),
            "progress": asdict(progress),
            "dev": result and result.dev,
            "flags": vars(task.options),
            "train_sha256": task.train_sha256,
            "versions": versions(),
            **info,
        }
        moments = checkpoint.optimizer_arrays(task.optimizer, task.network)
        score = result and Score(result.score, task.dev_sha256)
        root, keep = task.options.model_save_dir, kept(task.options.keep)
        task.log.sync()
        checkpoint.save(root, info, task.network.state_dict(), moments, state, vocabulary, keep, score)
    if dist.get_world_size() > 1:
        dist.barrier()


def check(found: Checkpoint, entry: str, kind: type) -> None:
    """Raise `CheckpointError` if no run of a task can resume from a checkpoint.

    Args:
        entry, kind: what stands in `checkpoint.json` of this task alone.
    """
    checkpoint.check_kind(found, entry)
    checkpoint.check_info(found, {**INFO, entry: kind})
    progress = found.info.get("progress")
    if isinstance(progress, dict) and "best_f1" in progress:  # its name in earlier versions
        progress["best_score"] = progress.pop("best_f1")
    checkpoint.progress_of(found, Progress)


def restore_training(optimizer, network: nn.Layer, found: Optional[Checkpoint], train_sha256: str) -> Progress:
    """Give an optimizer the state of a checkpoint (None: a new run); return the progress to start the loop with.

    Raises:
        OptionError: the checkpoint is of other examples.
    """
    if not found:
        return Progress()
    if train_sha256 != found.info["train_sha256"]:
        raise OptionError(f"the training lines are not those of {found.path}; start a new run with other lines")
    checkpoint.restore_optimizer(optimizer, network, found.optimizer, found.path / checkpoint.OPTIMIZER_FILE)
    return checkpoint.progress_of(found, Progress)


def first_step(progress: Progress, count: int, batch_size: int, seed: int, found: Optional[Checkpoint] = None) -> int:
    """Return the step at which the first epoch would have begun, had the batch size always been today's.

    What was trained on is counted in examples. Where the batch size was changed within an epoch, the examples of a
    batch that is begun are trained on again.

    Args:
        progress: "examples" is set to those of whole batches of today.
        count: of examples to train on. batch_size, seed: of `training_batches`.
        found: where the progress is from; its flags say the batch size of before examples were counted.
    """

    def sizes(batch_size, epoch):
        batches = training_batches(np.zeros(count), batch_size, seed, epoch)
        return np.cumsum([len(batch) for batch in batches])

    if progress.examples is None:
        before = found.info["flags"]["batch_size"]
        epoch, batches = divmod(progress.step, math.ceil(count / before))
        progress.examples = epoch * count + int(np.sum(sizes(before, epoch)[batches - 1 : batches]))
    epoch, done = divmod(progress.examples, count)
    ends = sizes(batch_size, epoch)
    batches = int(np.searchsorted(ends, done, side="right"))
    progress.examples = epoch * count + (int(ends[batches - 1]) if batches else 0)
    return progress.step - epoch * len(ends) - batches


# --- the end of a pass ---


def finish_epoch(task: Task, progress: Progress, clock: StepClock) -> Optional[Result]:
    """Score the held-out examples, write the figures; return the result, None without such examples."""
    result = None
    if task.evaluate:
        task.network.eval()
        result = task.evaluate()
        task.network.train()
    loss = progress.costs / progress.steps_since_epoch
    progress.costs, progress.steps_since_epoch = 0.0, 0
    figures = {"epoch": task.epoch(progress.step), "loss": loss, **mix_figures(task.network.encoder)}
    best = True
    if result:
        best = progress.best_score is None or result.score > progress.best_score
        progress.epochs_since_best = 0 if best else progress.epochs_since_best + 1
        if best:
            progress.best_score, progress.best_on = result.score, task.dev_sha256
        figures.update(result.figures)
    if task.log:
        task.log.write("epoch", progress.step, figures)
        report_epoch(task, figures, bool(result) and best, clock.left(task.total_steps - progress.step))
    return result


def report_epoch(task: Task, figures: Dict[str, float], best: bool, left: float) -> None:
    """Print the figures of a pass."""
    text = f"epoch {figures['epoch']:.4g}/{task.last_epoch}  loss {figures['loss']:.4f}"
    if task.evaluate:
        text += f"  {task.describe(figures)}" + ("  best so far" if best else "")
    if "gamma" in figures:
        weights = " ".join(f"{value:.3f}" for name, value in figures.items() if name.startswith("mix_"))
        text += f"  mix {weights}, gamma {figures['gamma']:.3f}"
    say(f"{text}  left at most {duration(left)}")


# --- the loop ---


def over(task: Task, progress: Progress) -> bool:
    """Say whether training has come to its end."""
    done = progress.step >= task.total_steps
    return done or progress.epochs_since_best >= task.options.patience


def train(task: Task, progress: Progress) -> None:
    """The loop: step → log → after each pass evaluate and save, until the last step or until asked to stop."""
    options, request, clock = task.options, StopRequest(), StepClock()
    if dist.get_world_size() > 1:  # devices may draw other initial numbers from the same seed
        for parameter in task.network.trained_parameters():
            dist.broadcast(parameter, src=0)
    if task.evaluate and progress.best_on not in (None, task.dev_sha256):  # scores that cannot be compared
        progress.best_score, progress.best_on, progress.epochs_since_best = None, None, 0
    epoch, stop, tokens = None, False, []  # of each step since the last line of figures, or since a resume
    while not over(task, progress) and not stop:
        step = progress.step
        number, place = divmod(step - task.first_step, task.steps_per_epoch)
        if number != epoch:
            epoch = number
            batches = training_batches(task.lengths, task.batch_size, options.random_seed, epoch)
        batch = batches[place]
        with clock:
            try:
                cost, stop = train_step(task, batch, step, request.asked)
            except TrainingError as error:
                raise TrainingError(
                    f"step {step + 1}: {error}; stopped. The checkpoints in {options.model_save_dir} are from before: "
                    "resume one of them with a lower --base_learning_rate"
                )
        progress.step += 1
        progress.examples += len(batch)
        progress.costs += cost
        progress.steps_since_epoch += 1
        tokens.append(int(task.lengths[batch].sum()))
        if progress.step % options.log_interval == 0:
            log_step(task, progress, cost, float(np.mean(tokens)), clock)
            tokens.clear()
        if place + 1 == task.steps_per_epoch or progress.step == task.total_steps:
            save_checkpoint(task, progress, finish_epoch(task, progress, clock))
        elif stop:
            save_checkpoint(task, progress, None)
    if task.log:
        task.log.close()


def log_step(task: Task, progress: Progress, cost: float, tokens: float, clock: StepClock) -> None:
    """Write the figures of one step."""
    step, speed = progress.step, tokens * clock.steps_per_second()
    if task.log:
        task.log.write("train", step, {"loss": cost, "tokens_per_second": speed})
        show_progress(step, task.total_steps, f"step {step}/{task.total_steps}  loss {cost:.4f}  {speed:.0f} tokens/s")
