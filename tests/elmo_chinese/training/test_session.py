"""elmo_chinese/training/session.py: the device of a process among several."""

import os
import signal
import threading
from types import SimpleNamespace

from elmo_chinese.training import session

import paddle


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
