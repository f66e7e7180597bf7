"""elmo_chinese/session.py: the device of a process among several."""

from types import SimpleNamespace

from elmo_chinese import session

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
