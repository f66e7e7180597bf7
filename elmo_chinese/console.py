"""What is told of the work: log lines, progress bars, times.

Everything goes to Python's logger "elmo_chinese", so that a program that uses the package as a library sees nothing but
warnings unless it asks for more. Commands print it: see `shown`.
"""

import contextlib
import logging
import os
import sys
import time
from typing import Iterator

logger = logging.getLogger("elmo_chinese")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.WARNING)  # Paddle 3 gives the root logger a handler that prints everybody's INFO lines


def duration(seconds: float) -> str:
    """Return seconds as `1h02m`, `2m03s` or `4s`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    scale, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "KB")
    return f"{count / scale:,.1f} {unit}"


def say(text: str) -> None:
    """Log a line; in a command it is printed for good, over a progress bar if there is one."""
    logger.info(text)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Print what is logged in this block to standard output."""
    handler, before = _Printer(), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class _Printer(logging.Handler):
    def emit(self, record):
        _print(("\r\033[K" if on_terminal() else "") + record.getMessage() + "\n")


def show_progress(done: int, total: int, text: str) -> None:
    """Redraw a progress bar in a command on a terminal; elsewhere do nothing (plain lines are printed instead)."""
    if not on_terminal():
        return
    filled = 20 * done // total
    line = f"[{'#' * filled}{'.' * (20 - filled)}] {text}"
    _print("\r\033[K" + line[: os.get_terminal_size().columns - 1])


def on_terminal() -> bool:
    """Say whether this is a command whose standard output somebody watches."""
    return (
        any(isinstance(handler, _Printer) for handler in logger.handlers)
        and sys.stdout is not None
        and sys.stdout.isatty()
    )


def _print(text: str) -> None:
    """Print a message; that it cannot be written must not end hours of work."""
    try:
        print(text, end="", flush=True)
    except OSError:
        drop_messages()


def drop_messages() -> None:
    """Send what is printed from here on nowhere: standard output cannot be written, which must not cost the work."""
    to_nowhere(1)


def to_nowhere(number: int) -> None:
    """Point a file descriptor at nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


class Progress:
    """How far a long piece of work is: a bar on a terminal, elsewhere a line at every tenth.

    Args:
        total: how much there is to do.
        unit: what is counted, for the text.
        scale: what is shown is divided by this (10**6 for bytes shown as MB).
        done: how much was done before.
    """

    def __init__(self, total: int, unit: str, scale: int = 1, done: int = 0):
        self.total, self.unit, self.scale = max(1, total), unit, scale
        self.done = self._before = done
        self._start = time.perf_counter()

    def add(self, amount: int, note: str = "") -> None:
        """Count some more and show it, after a note."""
        tenth = 10 * self.done // self.total
        self.done += amount
        speed = (self.done - self._before) / max(1e-6, time.perf_counter() - self._start)
        digits = 0 if speed >= 100 * self.scale else 1
        left = duration((self.total - self.done) / max(1e-6, speed))
        text = (
            f"{note}{self.done // self.scale:,} of {self.total // self.scale:,} {self.unit}  "
            f"{speed / self.scale:,.{digits}f} {self.unit}/s  left {left}"
        )
        show_progress(min(self.done, self.total), self.total, text)
        if 10 * self.done // self.total > tenth and not on_terminal():
            say(text)
