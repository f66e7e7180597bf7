"""elmo_chinese/text/workers.py: chunks for processes and clusters."""

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

from elmo_chinese.text import workers as workers_file
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.workers import in_order, usable_workers

import pytest
from conftest import ROOT

import preprocess


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


@pytest.mark.usefixtures("shown")
def test_workers_are_bounded_and_one_where_none_can_share_work(monkeypatch, capsys):
    monkeypatch.setattr(workers_file, "available_cores", lambda: 5)
    assert usable_workers(20) == 20 and capsys.readouterr().out == ""
    assert usable_workers(100000) == 20 and "20 processes instead of --workers 100000" in capsys.readouterr().out

    def lock():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(multiprocessing, "Lock", lock)
    assert usable_workers(3) == 1 and "is /dev/shm there, and writable" in capsys.readouterr().out
    assert usable_workers(1) == 1 and capsys.readouterr().out == ""


# --- a cluster ---

WORKER = """
import sys
import preprocess
from distributed.cli.dask_worker import main
sys.stdin.readline()
main()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler, and two processes beside it; returns its address, and them: they join when they get a line."""
    distributed = pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    flags = (
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--local-directory",
        str(folder),
        "--death-timeout",
        "60",
    )
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, protocol="tcp://", host="127.0.0.1") as here:
        start = [sys.executable, "-c", WORKER, here.scheduler_address, *flags]
        quiet = dict(stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        workers = [subprocess.Popen(start, **quiet) for _ in range(2)]
        yield here.scheduler_address, workers
        for worker in workers:
            worker.kill()
            worker.communicate()


def joins(worker):
    worker.stdin.write(b"\n")
    worker.stdin.flush()


def corpus(raw, output, *more):
    flags = ("--shard_size", "2KB", "--dev_fraction", "0.2", "--workers", "1")
    preprocess.main(["sentences", "--input", str(raw), "--output", str(output), *flags, *more])
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("shown")
def test_a_cluster_that_loses_a_worker_and_gets_another_makes_the_same_corpus(cluster, tmp_path, monkeypatch, capsys):
    address, (first, second) = cluster
    monkeypatch.setattr("elmo_chinese.text.corpus.documents.CHUNK", 100)
    monkeypatch.setattr(workers_file, "LOOK", 0.2)
    monkeypatch.chdir(tmp_path)  # the workers stand elsewhere
    (tmp_path / "words.txt").write_text("第几个 9\n", encoding="utf-8")
    raw = tmp_path / "raw.txt"
    raw.write_text(
        "\n\n".join(f"这是第几个文件{number}。猫爱吃鱼{number}！" for number in range(200)), encoding="utf-8"
    )
    expected = corpus(raw, tmp_path / "here", "--user_dict", "words.txt")
    assert sum("第几个 文件".encode() in content for content in expected.values()) > 3

    seen, counted = [], preprocess.count_in

    def count_in(*arguments):
        seen.append(arguments)
        if len(seen) == 5:
            first.kill()
            first.wait()
            joins(second)
        return counted(*arguments)

    monkeypatch.setattr(preprocess, "count_in", count_in)
    joins(first)
    assert corpus(raw, tmp_path / "there", "--user_dict", "words.txt", "--scheduler", address) == expected
    assert len(seen) > 20 and f"no worker is connected to {address}, waiting" in capsys.readouterr().out


def test_results_of_a_cluster_come_in_order_and_few_tasks_are_taken_ahead(cluster):
    taken = []

    def tasks():
        for number in range(20):
            taken.append(number)
            yield f"key {number}", -number

    for done, (key, result) in enumerate(in_order(abs, tasks(), 1, cluster[0])):
        assert key == f"key {done}" and result == done
        assert len(taken) <= done + 1 + 3 + 1


def test_what_workers_of_a_cluster_lack_is_an_error_that_says_where(cluster, tmp_path, monkeypatch):
    address = cluster[0]

    def message(function, scheduler=address):
        with pytest.raises(InputError) as error:
            list(in_order(function, [(0, str(tmp_path / "missing"))], 1, scheduler))
        return str(error.value)

    assert re.fullmatch(
        rf"the worker on \S+, in {ROOT}: .*{tmp_path}/missing.*", message(functools.partial(preprocess.what_cuts, None))
    )
    assert "No module named 'test_workers'); start workers in a clone" in message(_slowly)
    monkeypatch.setattr(workers_file, "__version__", "0.0")
    assert "the chunks come from 0.0" in message(abs)
    monkeypatch.setattr(workers_file, "LOOK", 0.1)
    assert "no scheduler answers there" in message(abs, "tcp://127.0.0.1:9")


def test_words_that_would_be_cut_otherwise_on_another_machine_are_an_error():
    here = preprocess.what_cuts(None, None)
    with pytest.raises(InputError, match=r"jieba [\d.]+ instead of 0.1\); bring"):
        preprocess.cut_chunk([], "none", None, None, None, {**here, "jieba": "0.1"})
