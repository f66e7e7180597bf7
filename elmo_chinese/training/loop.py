"""The loop of every training program: step → log → evaluate → save, until the last step or until asked to stop.

What differs between programs is a `Job`: the loss of a batch and the score of the model, above all. The language
model's is in `train.py`, that of tasks on it in `elmo_chinese/training/task.py`.
"""

import argparse
import contextlib
import math
import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from elmo_chinese import runtime
from elmo_chinese.command import UNEXPECTED, UserError
from elmo_chinese.console import say
from elmo_chinese.network import kernels
from elmo_chinese.network.gradients import scale_gradients, step_figures
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.checkpoint import Checkpoint, Score
from elmo_chinese.training.metrics import MetricsLog, StepClock, report_step
from elmo_chinese.training.session import StopRequest, Watchdog, say_how_to_use_all, versions, wait_for_all

import paddle
import paddle.distributed as dist

# What Paddle says, also of an error in a backward pass of ours, which it reports as one of its own.
MEMORY_IS_SHORT = ("out of memory", "alloc memory", "memoryerror")
States = Any  # what a step hands to the next one; None at the start


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class OutOfMemoryError(TrainingError):
    """A step needs more memory than there is, at this moment at least."""

    code = UNEXPECTED  # others may have taken it: starting again can help


@dataclass
class Progress:
    """What the loop carries from step to step, besides parameters, optimizer and states.

    Attributes:
        step: steps done. seen: words (of the language model) or examples (of a task) that were trained on.
        losses, steps_since_log: sum of the losses since the last line of figures, in nats, and of how many steps.
        pass_losses, steps_since_evaluation: the same since the last evaluation.
        evaluation_due: the evaluation of the last step was not made, or not to its end, because of a stop.
        best_score: the highest so far, None if there is none. best_on: `Job.dev_text` of it.
        evaluations_since_best: evaluations since then.
    """

    step: int = 0
    seen: int = 0
    losses: float = 0.0
    steps_since_log: int = 0
    pass_losses: float = 0.0
    steps_since_evaluation: int = 0
    evaluation_due: bool = False
    best_score: Optional[float] = None
    best_on: Optional[str] = None
    evaluations_since_best: int = 0


class Batch(NamedTuple):
    """What a step is trained on: anything that `Job.loss` takes, its words, and what it adds to `Progress.seen`."""

    content: Any
    words: int
    seen: int


class Result(NamedTuple):
    """What an evaluation found.

    Attributes:
        score: the higher the better, not below 0; None without a held-out text.
        figures: for the log. dev: what `checkpoint.json` says of it.
    """

    score: Optional[float]
    figures: Dict[str, float]
    dev: Optional[Dict[str, float]]


class Job(Protocol):
    """What a program trains, for `train`; this says what it has to have.

    Attributes:
        options: its flags, with `log_interval`, `keep`, `step_timeout`. root: the folder of the run.
        network: all that a checkpoint holds of it. parameters: those that are trained.
        max_grad_norm: gradients are scaled down to this global norm.
        total_steps: the number of the last step. patience: stop after so many evaluations without a better score.
        dev_text: checksum of the held-out text and of what is measured on it; None if there is none.
        evaluation: the kind of an evaluation's records in the log.
        log: of the first process, None in the others.
        memory_advice: what to do when memory is short. rate_flag: the flag of the learning rate.
    """

    options: argparse.Namespace
    root: Path
    network: paddle.nn.Layer
    parameters: Sequence[paddle.Tensor]
    optimizer: paddle.optimizer.Optimizer
    max_grad_norm: float
    total_steps: int
    patience: float
    dev_text: Optional[str]
    evaluation: str
    log: Optional[MetricsLog]
    memory_advice: str
    rate_flag: str

    def batches(self, progress: Progress) -> Iterator[Batch]:
        """Yield the batches from where the progress is, without end."""

    def learning_rate(self, progress: Progress) -> float:
        """Return the learning rate of the next step: the same in every process and after a resume."""

    def loss(self, batch: Any, states: States, step: int) -> Tuple[List[paddle.Tensor], States]:
        """Add the gradients of a batch's mean loss to those of the parameters, the same in every process.

        Returns:
            parts of this process's loss, in nats: their sum is the batch's loss in the mean over all processes; and
            the states after the step.
        """

    def epoch(self, progress: Progress) -> float:
        """Return how often the text was trained on."""

    def figures(self, loss: float, states: States) -> Dict[str, float]:
        """Return a mean loss under its name, and what else a line of figures says; all processes call this."""

    def is_evaluated(self, step: int) -> bool:
        """Say whether an evaluation follows a step."""

    def is_saved(self, step: int) -> bool:
        """Say whether a checkpoint follows a step, also where it is neither the best nor the last."""

    def evaluate(
        self, progress: Progress, states: States, asked: Callable[[], bool], watchdog: Watchdog
    ) -> Optional[Result]:
        """Measure the network on the dev text; None if any process was asked to stop.

        Args:
            asked: whether this process was asked to stop; calling it tells the watchdog that the work goes on.
            watchdog: which `paused()` where work takes long that waits for nobody.
        """

    def describe(self, figures: Dict[str, float]) -> str:
        """Return the figures of an evaluation as text."""

    def content(self, progress: Progress, states: States) -> Tuple[Dict[str, Any], Dict[str, Any], str]:
        """Return what a checkpoint holds besides: entries of `checkpoint.json`, arrays, text of the vocabulary.

        All processes call this.
        """


def train(job: Job, progress: Progress, states: States = None) -> bool:
    """Train to the last step, or until asked to stop; return whether it is the end.

    Args:
        progress: where to start; it is changed.
        states: after the last step, see `Job.loss`.
    """
    request, clock = StopRequest(), StepClock()
    watchdog = Watchdog(job.options.step_timeout, clock)
    batches, stop = job.batches(progress), False

    def asked() -> bool:
        watchdog.beat()
        return request.asked

    with watchdog:
        while not (stop or is_over(job, progress)):
            resumed = progress.evaluation_due  # the step was made before this start, but not its evaluation
            if not resumed:
                with clock, short_of_memory(job, f"step {progress.step + 1}"):
                    norm, states, stop = do_step(job, progress, next(batches), states, clock, asked())
                if progress.step % job.options.log_interval == 0 or progress.step == job.total_steps:
                    log_step(job, progress, norm, states, clock)
                progress.evaluation_due = job.is_evaluated(progress.step)
            result, best = None, False
            if progress.evaluation_due and not stop:
                with short_of_memory(job, "evaluation"):
                    result = job.evaluate(progress, states, asked, watchdog)
                stop, best = result is None, result is not None and log_evaluation(job, progress, result)
            last = progress.step == job.total_steps
            if resumed or stop or best or last or job.is_saved(progress.step):
                save(job, progress, states, result)
    if job.log:
        report_end(job, progress)
    return is_over(job, progress)


def is_over(job: Job, progress: Progress) -> bool:
    """Say whether training has come to its end, the last evaluation included."""
    done = progress.step >= job.total_steps or progress.evaluations_since_best >= job.patience
    return done and not progress.evaluation_due


def do_step(
    job: Job, progress: Progress, batch: Batch, states: States, clock: StepClock, stop: bool
) -> Tuple[float, States, bool]:
    """Do one update and count it; return the gradient norm, the states, and whether any process was asked to stop.

    Raises:
        TrainingError: loss or gradient is not finite; the parameters are as they were before the step.
    """
    job.optimizer.set_lr(job.learning_rate(progress))
    losses, states = job.loss(batch.content, states, progress.step + 1)
    loss, norm, stop = step_figures(losses, stop, job.parameters)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        job.optimizer.clear_grad()
        raise TrainingError(
            f"step {progress.step + 1}: loss is {loss}, gradient norm is {norm}; stopped. The checkpoints in "
            f"{job.root} are from before: resume one of them with a lower {job.rate_flag}"
        )
    scale_gradients(job.parameters, norm, job.max_grad_norm, job.optimizer)
    job.optimizer.step()
    job.optimizer.clear_grad(set_to_zero=False)  # zeros would only be overwritten
    progress.step += 1
    progress.seen += batch.seen
    progress.losses += loss
    progress.pass_losses += loss
    progress.steps_since_log += 1
    progress.steps_since_evaluation += 1
    clock.words += batch.words
    return norm, states, stop


@contextlib.contextmanager
def short_of_memory(job: Job, what: str) -> Iterator[None]:
    """Turn what Paddle and Python say when memory is short into one line that says what to do."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not any(sign in text for sign in MEMORY_IS_SHORT):
            raise
        raise OutOfMemoryError(
            f"{what}: out of memory; {job.memory_advice}. The checkpoints in {job.root} are from before"
        )


def log_step(job: Job, progress: Progress, norm: float, states: States, clock: StepClock) -> None:
    """Write the figures of the steps since the last time."""
    words_per_second = clock.words_per_second()
    figures = {
        "epoch": job.epoch(progress),
        **job.figures(progress.losses / progress.steps_since_log, states),
        "grad_norm": norm,
        "learning_rate": job.optimizer.get_lr(),
        "tokens_per_second": words_per_second,
    }
    progress.losses, progress.steps_since_log = 0.0, 0
    if job.log:
        job.log.write("train", progress.step, figures)
        report_step(progress.step, job.total_steps, figures, clock.left(job.total_steps - progress.step))


def log_evaluation(job: Job, progress: Progress, result: Result) -> bool:
    """Write the figures of an evaluation; return whether its score is the best so far."""
    before = -1.0 if progress.best_score is None else progress.best_score
    best = result.score is not None and result.score > before  # NaN is never the best
    if best:
        progress.best_score, progress.best_on = result.score, job.dev_text
    progress.evaluations_since_best = 0 if best or result.score is None else progress.evaluations_since_best + 1
    progress.pass_losses, progress.steps_since_evaluation, progress.evaluation_due = 0.0, 0, False
    if job.log:
        job.log.write(job.evaluation, progress.step, result.figures)
        text = f"step {progress.step}/{job.total_steps}  {job.describe(result.figures)}"
        say(text + ("  best so far" if best else ""))
    return best


def save(job: Job, progress: Progress, states: States, result: Optional[Result]) -> None:
    """Write everything that a resumed run needs; all processes call this, the first one writes."""
    info, arrays, vocabulary = job.content(progress, states)
    if dist.get_rank() == 0:
        info = {
            **info,
            "step": progress.step,
            "epoch": job.epoch(progress),
            "progress": asdict(progress),
            "dev": result and result.dev,
            "dev_text": job.dev_text,
            "flags": vars(job.options),
            "versions": versions(),
        }
        moments = contents.optimizer_arrays(job.optimizer, job.network)
        score = Score(result.score, job.dev_text) if result and result.score is not None else None
        keep = None if job.options.keep == "all" else int(job.options.keep)
        job.log.sync()
        checkpoint.save(job.root, info, job.network.state_dict(), moments, arrays, vocabulary, keep, score)
    wait_for_all()


def progress_of(found: Optional[Checkpoint], dev_text: Optional[str]) -> Progress:
    """Return where a run starts: the progress of the checkpoint that it is resumed from, if any.

    Args:
        dev_text: `Job.dev_text`; a score on another is not compared.
    """
    if found is None:
        return Progress()
    progress = contents.progress_of(found, Progress)
    if progress.best_on != dev_text:
        progress.best_score, progress.best_on, progress.evaluations_since_best = None, None, 0
    return progress


def report_start(job: Job, found: Optional[Checkpoint], progress: Progress, lines: List[str]) -> None:
    """Print what is about to be trained, on what, and for how long.

    Args:
        found: the checkpoint that the run is resumed from. lines: what the job says of itself.
    """
    options, root, device = job.options, job.root, paddle.device.get_device().split(":")[0]
    checkpoint.check_room(root, job.network, job.optimizer)
    if found:
        say(f"resuming from {found.path}: step {progress.step}, epoch {job.epoch(progress):.2f}")
    say(f"devices     {dist.get_world_size()} × {device} ({runtime.SETTINGS}; {kernels.describe()})")
    say_how_to_use_all(device)
    say("versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    for line in lines:
        say(line)
    if options.keep == "all":
        say(f"kept        all checkpoints in {root}")
    else:
        say(
            f"kept        the newest {options.keep} checkpoints in {root}, and the best one; older ones are deleted "
            "(--keep all: none)"
        )


def report_end(job: Job, progress: Progress) -> None:
    """Print how training ended, and where everything is."""
    log, script = job.root / "log", os.environ.get("ELMO_SCRIPT")  # a run.sh says so of itself, and resumes by itself
    again = f"the same `{script} …`" if script else "the same command, --load_dir auto"
    if is_over(job, progress):
        more = "--max_epoch" if job.patience == math.inf else "--max_epoch or --patience"
        passes = max(job.options.max_epoch, math.floor(job.epoch(progress)))  # it may have had more of them before
        say(f"trained to step {progress.step}; more with {again} and a larger {more} than {passes:g}")
    else:
        say(f"asked to stop: saved step {progress.step}; resume with {again}")
    newest = next(checkpoint.candidates(job.root), None)
    if newest:  # none was saved where the run that this one goes on from had come to its end
        say(f"checkpoint {newest}")
    say(f"logs       {log}")
    best = checkpoint.best_of(job.root)
    if best:
        say(f"best       {best}")
    # In an environment that is not active the name alone would not be found.
    own = Path(sys.executable).with_name("visualdl")
    visualdl = "visualdl"
    if own.exists() and not shutil.which("visualdl"):
        visualdl = min(os.path.relpath(own), str(own), key=len)
    say(f"curves     {shlex.quote(visualdl)} --logdir {shlex.quote(os.path.relpath(log))}")
