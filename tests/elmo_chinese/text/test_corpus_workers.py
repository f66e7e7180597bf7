"""elmo_chinese/text/corpus/workers.py: several processes, results in order."""

import os
import signal
import time

from elmo_chinese.text.corpus.workers import in_order
from elmo_chinese.text.reading import InputError

import pytest


def _slowly(number):
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number


def _die(number):
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_few_tasks_are_taken_ahead(workers):
    taken = []

    def tasks():
        for number in range(40):
            taken.append(number)
            yield f"key {number}", number

    for done, (key, result) in enumerate(in_order(_slowly, tasks(), workers)):
        assert key == f"key {done}" and result == done * done
        assert len(taken) <= done + 1 + 3 * workers + 1


def test_a_killed_worker_is_an_error():
    with pytest.raises(InputError, match="a worker process ended"):
        list(in_order(_die, enumerate(range(20)), 2))
