"""Work on a text handed out in chunks: to processes of this machine, or to those of a Dask cluster.

Both are executors of `concurrent.futures`. Results come back in order, and few chunks are on their way at any time, so
that a text may be larger than memory. Nothing is kept in the cluster: what a run resumes from is on the disk of whoever
hands out the chunks.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import threading
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

from elmo_chinese import __version__
from elmo_chinese.command import UserError
from elmo_chinese.console import say
from elmo_chinese.runtime import available_cores
from elmo_chinese.text.reading import InputError

WORKERS_A_CORE = 4
AHEAD = 3  # chunks on their way for each worker
LOOK = 10  # seconds; after so long without a result it is looked whether there is a worker at all
START = "start workers in a clone of the same version on each machine, see docs/several_machines.md"
_ONE = threading.Lock()  # a worker of a cluster may have threads; neither jieba's caches nor Paddle are made for them


def usable_workers(wanted: int) -> int:
    """Return how many processes are started of those that are wanted, and say why if it is another number.

    More than `WORKERS_A_CORE` for each core cost memory and gain nothing. Without semaphores (Linux keeps them in
    /dev/shm) processes cannot share work.
    """
    most = max(16, WORKERS_A_CORE * available_cores())
    if wanted > most:
        say(f"{most} processes instead of --workers {wanted}: more would gain nothing on {available_cores()} cores")
    if wanted > 1:
        try:
            multiprocessing.Lock()
        except (OSError, ImportError) as error:
            say(
                f"one process instead of {wanted}: none can share work here ({error}; is /dev/shm there, and writable?)"
            )
            return 1
    return min(wanted, most)


def in_order(
    function: Callable, tasks: Iterable[Tuple[Any, Any]], workers: int, scheduler: Optional[str] = None
) -> Iterator[Tuple[Any, Any]]:
    """Yield `(key, function(task))` for each `(key, task)`, in order; worked out by several processes.

    Args:
        workers: how many, on this machine. scheduler: the address of a Dask cluster, whose workers do it instead.

    Raises:
        InputError: a worker was killed; the cluster cannot be reached, is lost, or lacks the project or a file.
    """
    if workers == 1 and scheduler is None:
        for key, task in tasks:
            yield key, function(task)
        return
    waiting: collections.deque = collections.deque()
    with _processes(workers) if scheduler is None else _cluster(scheduler) as (pool, count):
        try:
            for key, task in tasks:
                call = (function, task) if scheduler is None else (pickle.loads, pickle.dumps(_Call(function, task)))
                waiting.append((key, pool.submit(*call)))
                while len(waiting) > AHEAD * count():  # memory is bounded by so many chunks
                    key, future = waiting.popleft()
                    yield key, _result(future, count)
            while waiting:
                key, future = waiting.popleft()
                yield key, _result(future, count)
        finally:
            for _, future in waiting:
                future.cancel()


def _result(future: Future, count: Callable[[], int]) -> Any:
    while True:
        try:
            return future.result(timeout=LOOK)
        except NotYet:
            if future.done():  # the function raised it
                raise
            count()


# --- this machine ---


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Tuple[Executor, Callable[[], int]]]:
    """Yield processes of this machine as an executor, and what counts them."""
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        try:
            yield pool, lambda: workers
        except BrokenProcessPool:
            raise InputError("a worker process ended (killed? no memory?); start the same command again to resume")


def _end_with_parent() -> None:
    """Make a worker leave Ctrl-C to the main process, and end when that one is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# --- a cluster ---


@contextlib.contextmanager
def _cluster(scheduler: str) -> Iterator[Tuple[Executor, Callable[[], int]]]:
    """Yield the workers of a Dask cluster as an executor, and what counts them: they come and go.

    Chunks of a worker that is lost go to others; where a chunk has ended four of them, it is at fault.
    """
    try:
        import distributed
        from distributed.comm import CommClosedError
    except ImportError:
        raise InputError("--scheduler needs Dask: pip install distributed (the version in requirements-dev.txt)")
    try:
        client = distributed.Client(scheduler, timeout=LOOK, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {scheduler}: no scheduler answers there ({error}); start one: dask scheduler")
    told = False

    def count() -> int:
        nonlocal told
        found = len(client.ncores())
        if not (found or told):
            say(f"no worker is connected to {scheduler}, waiting for one; {START}")
        told = not found
        return found

    try:
        yield client.get_executor(pure=False), count
    except distributed.KilledWorker as error:
        raise InputError(f"a chunk ended several workers (no memory?): {error}; the same command resumes")
    except (CancelledError, CommClosedError) as error:
        raise InputError(f"the scheduler {scheduler} was lost ({error!r}); start it and the same command to resume")
    except (ImportError, AttributeError) as error:  # what unpickling says where the project is not, or another
        raise InputError(f"a worker of {scheduler} cannot load the project ({error}); {START}")
    finally:
        client.close()


class _Call:
    """Unpickled, it is the result of `_on_a_machine`.

    So a worker gets bytes and a function of Python. One that lacks the project would not answer at all if it were
    handed a function of the project: Dask would fail to read its task, again and again.
    """

    def __init__(self, function: Callable, task: Any):
        self.call = (_on_a_machine, (__version__, function, task))

    def __reduce__(self):
        return self.call


def _on_a_machine(version: str, function: Callable, task: Any) -> Any:
    """Work on a chunk in a worker of a cluster; what is wrong there says where."""
    try:
        if version != __version__:
            raise InputError(f"it has version {__version__} of the project, and the chunks come from {version}")
        with _ONE:
            return function(task)
    except UserError as error:
        raise InputError(f"the worker on {socket.gethostname()}, in {os.getcwd()}: {error}")
