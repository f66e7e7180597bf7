"""Work shared by several processes whose results come back in order."""

import collections
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Iterable, Iterator, Tuple

from elmo_chinese.text.reading import InputError


def _end_with_parent() -> None:
    """Make a worker leave Ctrl-C to the main process, and end when that one is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def in_order(function: Callable, tasks: Iterable[Tuple[Any, Any]], workers: int) -> Iterator[Tuple[Any, Any]]:
    """Yield `(key, function(task))` for each `(key, task)`, in order; worked out by several processes.

    Raises:
        InputError: a worker was killed.
    """
    if workers == 1:
        for key, task in tasks:
            yield key, function(task)
        return
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for key, task in tasks:
                waiting.append((key, pool.submit(function, task)))
                if len(waiting) > 3 * workers:  # memory is bounded by so many chunks
                    key, future = waiting.popleft()
                    yield key, future.result()
            while waiting:
                key, future = waiting.popleft()
                yield key, future.result()
        except BrokenProcessPool:
            raise InputError("a worker process ended (killed? no memory?); start the same command again to resume")
        finally:
            for _, future in waiting:
                future.cancel()
