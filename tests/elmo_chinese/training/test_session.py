"""elmo_chinese/training/session.py: the device of a process among several."""

import os
import re
import signal
import threading
import time
from types import SimpleNamespace

from elmo_chinese.command import UNEXPECTED, OptionError
from elmo_chinese.training import session
from elmo_chinese.training.metrics import StepClock

import paddle
import pytest


def test_several_processes_without_a_gpu_stay_on_the_cpu_also_where_paddle_sees_cards(monkeypatch):
    """Paddle reads the backend from the environment; with gloo it leaves the cards alone."""
    seen = []
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "auto")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(session.dist, "ParallelEnv", lambda: SimpleNamespace(world_size=2))
    monkeypatch.setattr(
        session.dist, "init_parallel_env", lambda: seen.append(session.os.environ["PADDLE_DISTRI_BACKEND"])
    )
    assert session.choose_device(False) == "cpu" and seen == ["gloo"]


def test_a_program_that_trained_has_its_signals_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with session.signals_back():
        request = session.StopRequest()
        os.kill(os.getpid(), signal.SIGTERM)
    assert request.asked
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_training_can_be_asked_for_in_any_thread():
    made = []
    thread = threading.Thread(target=lambda: made.append(session.StopRequest()))
    thread.start()
    thread.join()
    assert made and not made[0].asked


def test_a_closed_terminal_stops_a_run_unless_it_was_started_to_outlive_that():
    with session.signals_back():
        request = session.StopRequest()
        os.kill(os.getpid(), signal.SIGHUP)
        assert request.asked
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with session.signals_back():
            request = session.StopRequest()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_watchdog_ends_a_process_whose_work_stands_still(monkeypatch, capsys):
    ended = threading.Event()
    monkeypatch.setattr(session.os, "_exit", lambda code: (ended.set(), time.sleep(9)) if code == UNEXPECTED else None)
    clock = StepClock()
    watchdog = session.Watchdog(0.4, clock)
    with watchdog:
        for _ in range(4):
            time.sleep(0.2)
            watchdog.beat()
        with watchdog.paused():
            time.sleep(0.8)
    time.sleep(0.8)
    assert not ended.is_set()
    with watchdog:
        assert ended.wait(3)
    assert "no step was made for 0 s" in capsys.readouterr().err


def test_the_watchdog_waits_half_an_hour_or_twenty_usual_steps():
    clock = StepClock()
    watchdog = session.Watchdog(None, clock)
    assert watchdog.limit() == 1800
    clock._last.extend([1.0, 100.0, 100.0])
    assert watchdog.limit() == 2000


def test_sizes_that_no_memory_holds_are_refused_with_what_to_lower(monkeypatch):
    monkeypatch.setattr(session, "memory_of_device", lambda: 8 * 2**30)
    session.check_memory(2**30, 2, "--hidden_size")
    with pytest.raises(
        OptionError, match="1,073,741,825 parameters; .* 12 GB of memory, and there are 8 GB: lower --h"
    ):
        session.check_memory(2**30 + 1, 3, "--hidden_size")


@pytest.mark.usefixtures("shown")
def test_one_process_where_there_could_be_several_points_to_run_sh(shown, monkeypatch, capsys):
    monkeypatch.delenv("CPU_NUM", raising=False)
    session.say_how_to_use_all("cpu")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("CPU_NUM", "2")
    session.say_how_to_use_all("cpu")
    assert re.search("CPU_NUM is 2, .*`sh run.sh`", capsys.readouterr().out)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 4)
    session.say_how_to_use_all("gpu")
    assert re.search("4 cards are visible, .*`sh run.sh`", capsys.readouterr().out)
