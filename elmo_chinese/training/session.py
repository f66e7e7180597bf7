"""What every training program does around its loop: device, checkpoint to resume from, a request to stop."""

import argparse
import contextlib
import os
import platform
import signal
import sys
import threading
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from elmo_chinese.command import OptionError, UserError
from elmo_chinese.console import say
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.training.flags import TrainingParser

import numpy as np
import paddle
import paddle.distributed as dist


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message says at which step and why."""


STOPS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def signals_back() -> Iterator[None]:
    """Give a program its signals back after training in this block.

    Not for a command: the launcher may send one more when it has done its work, which must not end it.
    """
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


class StopRequest:
    """Remembers that SIGTERM or Ctrl-C came, so that the step can be finished; a second Ctrl-C ends at once.

    The launcher sends SIGTERM three times over, so that one is taken as a single request. In another thread than the
    main one, which alone gets signals, it remembers nothing.
    """

    def __init__(self):
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, self._remember)

    def _remember(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


def choose_device(use_gpu: Optional[bool]) -> str:
    """Set the device and join the other processes of `paddle.distributed.launch`; return its name.

    Args:
        use_gpu: None: a GPU if Paddle sees one.

    Raises:
        OptionError: a GPU is asked for, but there is none.
    """
    there = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if use_gpu and not there:
        raise OptionError("--use_gpu true, but Paddle sees no GPU; run with --use_gpu false")
    device = "gpu" if there and use_gpu is not False else "cpu"
    paddle.set_device(device)
    if dist.ParallelEnv().world_size > 1:
        if device == "cpu":  # else Paddle built for GPUs takes the card again
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
        dist.init_parallel_env()
    return device


def leave() -> None:
    """End a process of several on the CPU that has done its work, without what Python and Paddle do at an end.

    Taking gloo down then ends a process in a segmentation fault now and then, after all is saved and said.
    """
    if dist.get_world_size() > 1 and paddle.device.get_device() == "cpu":
        dist.barrier()  # nobody is waited for any more
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def kept(keep: str) -> int:
    """Return how many checkpoints stay, by --keep; 0: all of them."""
    return 0 if keep == "all" else int(keep)


def versions() -> Dict[str, str]:
    """Return the versions that matter to a run."""
    return {"python": platform.python_version(), "paddle": paddle.__version__, "numpy": np.__version__}


def find_checkpoint(load_dir: str, root: Path, flag: str) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, None for a new run.

    Args:
        load_dir: the folder of a checkpoint, or of a run, which means its newest sound one; "auto": that of `root`,
            if any; "": none.
        root: the folder of the run. flag: that which names it, for messages.

    Raises:
        CheckpointError: it cannot be read.
        OptionError: a new run, but there are checkpoints in `root` already.
    """
    if load_dir == "auto" or load_dir and any(checkpoint.candidates(load_dir)):
        of = root if load_dir == "auto" else Path(load_dir)
        found, damages = checkpoint.load_newest(of)
        for damage in damages:
            say(f"warning: {damage}; trying the one before")
        if found is None:
            _refuse_best(of, flag)
            say(f"no checkpoint in {of} yet: starting afresh")
        return found
    if load_dir:
        _refuse_best(Path(load_dir), flag)
        return checkpoint.load(load_dir)
    if any(checkpoint.candidates(root)):
        raise OptionError(
            f"{root} already holds checkpoints; resume them with --load_dir auto, "
            f"or choose another {flag} for a new run"
        )
    _refuse_best(root, flag)
    return None


def _refuse_best(root: Path, flag: str) -> None:
    """Raise `OptionError` if of a run nothing but its best checkpoint is left, which a new run would be taken for."""
    best = checkpoint.best_of(root)
    if best:
        raise OptionError(
            f"{root} holds a best checkpoint and no other; go on from it with --load_dir {best}, or choose another "
            f"{flag} for a new run"
        )


def checkpoint_to_resume(
    parser: TrainingParser,
    arguments: List[str],
    options: argparse.Namespace,
    folder: str,
    check: Callable[[Checkpoint], None],
) -> Tuple[Optional[Checkpoint], argparse.Namespace]:
    """Return the checkpoint to resume from, None for a new run, and the options with its flags taken over.

    Args:
        arguments, options: see `TrainingParser.parse`.
        folder: the name of the flag that says where the run is.
        check: raises what is wrong with a checkpoint for the program, before anything of it is used.
    """
    found = find_checkpoint(options.load_dir, Path(getattr(options, folder)), f"--{folder}")
    if found:
        check(found)
        options, _ = parser.parse(arguments, found.info["flags"], found.path)
    return found, options
