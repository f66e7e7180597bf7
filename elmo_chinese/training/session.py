"""What every training program does around its loop: device, checkpoint to resume from, a request to stop."""

import argparse
import contextlib
import itertools
import math
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from elmo_chinese.command import UNEXPECTED, OptionError
from elmo_chinese.console import say
from elmo_chinese.files import check_apart
from elmo_chinese.storage import checkpoint
from elmo_chinese.storage.checkpoint import Checkpoint
from elmo_chinese.training.flags import TrainingParser
from elmo_chinese.training.metrics import StepClock

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import collective

# A closed terminal (SIGHUP) stops a run as the others do, unless it was started to outlive that (nohup).
STOPS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


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
    """Remembers that SIGTERM, SIGHUP or Ctrl-C came, so that the step can be finished; a second Ctrl-C ends at once.

    The launcher sends SIGTERM three times over, so that one is taken as a single request. In another thread than the
    main one, which alone gets signals, it remembers nothing.
    """

    def __init__(self):
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._remember)
                    if hasattr(signal, "siginterrupt"):  # not Windows; Paddle's store fails where its waiting is cut
                        signal.siginterrupt(number, False)

    def _remember(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


class Watchdog:
    """Ends this process if its work (`with watchdog:`) does not go on: what it waits for may never come.

    Where a machine is lost, the others wait for it in their next sum, some of them for ever. Their launcher sees a
    process that ends, ends the rest, and can start all of them again.

    Args:
        seconds: how long nothing may happen; None: half an hour, or 20 times a usual step if that is longer.
        clock: of the steps.
    """

    def __init__(self, seconds: Optional[float], clock: StepClock):
        self._seconds, self._clock = seconds, clock
        self._beat: Optional[float] = None  # when something happened last; None: nobody waits
        threading.Thread(target=self._watch, daemon=True).start()

    def beat(self) -> None:
        """Note that the work goes on."""
        if self._beat is not None:
            self._beat = time.monotonic()

    def __enter__(self):
        self._beat = time.monotonic()

    def __exit__(self, *exception):
        self._beat = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do in this block what may take as long as it likes, since it waits for nobody."""
        self._beat = None
        try:
            yield
        finally:
            self._beat = time.monotonic()

    def limit(self) -> float:
        """Return how many seconds nothing may happen."""
        return self._seconds or max(1800.0, 20 * self._clock.usual_seconds())

    def _watch(self) -> None:
        while True:
            time.sleep(min(1, self.limit() / 4))
            beat, limit = self._beat, self.limit()
            if beat is not None and time.monotonic() - beat > limit:
                print(
                    f"error: no step was made for {limit:.0f} s, perhaps because a machine or a process was lost; "
                    "ended. Resume with the same command and --load_dir auto; --step_timeout waits longer",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(UNEXPECTED)


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


def memory_of_device() -> float:
    """Return the bytes that the card has, or on the CPU the most that this process may take."""
    if paddle.is_compiled_with_cuda() and paddle.device.get_device() != "cpu":
        return paddle.device.cuda.get_device_properties().total_memory
    limits = [math.inf]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            limits.append(int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")))
    return min(limits)


def check_memory(parameters: int, copies: int, flags: str) -> None:
    """Raise `OptionError` if so many parameters cannot be held, before anything is set aside for them.

    Args:
        copies: of each: itself, and what the optimizer keeps. flags: those that decide on the number.
    """
    needed, there = 4 * parameters * copies, memory_of_device()
    if needed > there:
        raise OptionError(
            f"these sizes make {parameters:,} parameters; with what the optimizer keeps of them they take "
            f"{needed / 2**30:,.0f} GB of memory, and there are {there / 2**30:,.0f} GB: lower {flags}"
        )


def say_how_to_use_all(device: str) -> None:
    """Print how to train on all cards, or with CPU_NUM processes, where there are more than this one uses."""
    cards = paddle.device.cuda.device_count() if device == "gpu" else 1
    processes = os.environ.get("CPU_NUM", "1") if device == "cpu" else "1"
    if dist.get_world_size() == 1 and (cards > 1 or processes not in ("", "1")):
        there = f"{cards} cards are visible" if cards > 1 else f"CPU_NUM is {processes}"
        say(f"note: {there}, but this process trains on one device alone; `sh run.sh` starts one process for each")


_meetings = itertools.count()


def wait_for_all() -> None:
    """Wait until all processes have come here, however long that takes.

    Before a sum over processes that come from work of unequal length: gloo's sums and barriers give up after 30 s.
    """
    store, key = collective._default_store, f"elmo_chinese/{next(_meetings)}"
    if dist.get_world_size() > 1:
        store.add(key, 1)
        while store.add(key, 0) < dist.get_world_size():
            time.sleep(0.05)


def leave() -> None:
    """End a process of several on the CPU that has done its work, without what Python and Paddle do at an end.

    Taking gloo down then ends a process in a segmentation fault now and then, after all is saved and said.
    """
    if dist.get_world_size() > 1 and paddle.device.get_device() == "cpu":
        wait_for_all()  # and nobody is waited for any more
        sys.stdout.flush()
        sys.stderr.flush()
        store, others = collective._default_store, dist.get_world_size() - 1
        if dist.get_rank() > 0:
            store.add("elmo_chinese/left", 1)
        while dist.get_rank() == 0 and store.add("elmo_chinese/left", 0) < others:  # the store ends with this process
            time.sleep(0.05)
        os._exit(0)


def versions() -> Dict[str, str]:
    """Return the versions that matter to a run."""
    return {"python": platform.python_version(), "paddle": paddle.__version__, "numpy": np.__version__}


def find_checkpoint(load_dir: str, root: Path, flag: str) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, None for a new run.

    Args:
        load_dir: the folder of a checkpoint, or of a run, which means its newest sound one; "auto": that of `root`,
            if any; "": none.
        root: the folder of the run; what is found elsewhere begins a new run there, and goes on with that one the next
            time. flag: that which names it, for messages.

    Raises:
        CheckpointError: it cannot be read.
        OptionError: `root` holds the checkpoints of another run.
    """
    if load_dir == "auto":
        return _newest(root)
    held = bool(checkpoint.all_saved(root)) or (root / "latest").is_file()
    if not load_dir:
        if held:
            raise OptionError(
                f"{root} already holds checkpoints; resume them with --load_dir auto, "
                f"or choose another {flag} for a new run"
            )
        return None
    path = Path(load_dir)
    of_run = any(checkpoint.candidates(path)) or (path / "latest").is_file()
    found = _newest(path) if of_run else checkpoint.load(path)
    if not held or os.path.samefile(found.path.parent, root):
        return found
    if checkpoint.goes_on_from(root, found):
        say(f"{root} holds the run that began from {load_dir}: going on with it")
        return _newest(root)
    raise OptionError(
        f"{root} holds another run; choose another {flag} for one that goes on from {load_dir}, give {flag} "
        f"{found.path.parent} to go on there, or --load_dir auto to go on with {root}"
    )


def _newest(root: Path) -> Optional[Checkpoint]:
    """Return the newest sound checkpoint of a run, None if it has none yet; say what is wrong with newer ones."""
    found, damages = checkpoint.load_newest(root)
    for damage in damages:
        say(f"warning: {damage}; trying the one before")
    if found is None:
        say(f"no checkpoint in {root} yet: starting afresh")
    return found


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
    root = Path(getattr(options, folder))
    found = find_checkpoint(options.load_dir, root, f"--{folder}")
    if found:
        check(found)
        options, _ = parser.parse(arguments, found.info["flags"], found.path)
    for text in ("train_path", "test_path", "train_data", "dev_data", "test_data"):
        given = getattr(options, text, None) or ()
        check_apart(f"--{folder}", [root], [given] if isinstance(given, str) else given)
    checkpoint.claim(root, found)
    wait_for_all()  # the others read the run's id from the file
    return found, options


def keep_rows(options: argparse.Namespace, typed: Set[str], found: Checkpoint) -> None:
    """Choose the batch size and the passes that were not typed so that a step has as many rows as before."""
    rows, processes = found.info["rows"], dist.get_world_size()
    if "accumulate" not in typed:
        known = "batch_size" in typed
        passes = rows // (processes * options.batch_size) if known else found.info["flags"].get("accumulate", 1)
        if passes and rows % (processes * passes) == 0:
            options.accumulate = passes
            if known and passes > 1:
                say(f"--accumulate {passes}: so a step has {rows} rows as before")
    passes = processes * options.accumulate
    if "batch_size" not in typed and rows % passes == 0:
        options.batch_size = rows // passes
