"""elmo_chinese/training/metrics.py: records that are read back, and what is said when they cannot be."""

import math
import os
import subprocess
import sys

from elmo_chinese.storage.checkpoint import CheckpointError
from elmo_chinese.training.metrics import MetricsLog, perplexity, read_metrics

import pytest
from conftest import ROOT

RUN = "0123456789abcdef"


def test_perplexity_of_what_is_no_number_is_none():
    assert (
        math.isnan(perplexity(math.nan)) and perplexity(1e9) == math.inf and perplexity(math.log(7)) == pytest.approx(7)
    )


def test_a_log_goes_on_without_what_came_after(tmp_path):
    (tmp_path / "vdlrecords.mine.log").write_bytes(b"of another")
    log = MetricsLog(tmp_path, RUN, 0)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": step})
    log.sync()
    log.close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "st')  # a kill cut it
    log = MetricsLog(tmp_path, RUN, 2)
    log.write("train", 3, {"loss": 30})
    log.close()
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 30]
    assert (tmp_path / "vdlrecords.mine.log").read_bytes() == b"of another"


def test_what_runs_are_compared_by_stands_there_once_after_resuming(tmp_path):
    from visualdl import LogReader

    for step, rate in ((0, 0.2), (1, 0.1)):
        flags = {"rate": rate, "layers": 2, "optim": "sgd", "shuffle": True, "limit": None, "patience": 2**64}
        log = MetricsLog(tmp_path, RUN, step, flags, ["train/loss"])
        log.write("train", step + 1, {"loss": rate})
        log.close()
    (path,) = tmp_path.glob("vdlrecords.*.log")
    assert path.name == f"vdlrecords.{RUN}.log"
    (record,) = LogReader(file_path=str(path)).get_data("hyper_parameters", "hparam")
    shown = {info.name: getattr(info, info.WhichOneof("type")) for info in record.hparam.hparamInfos}
    assert shown == {"rate": 0.1, "layers": 2, "optim": "sgd", "shuffle": "true", "patience": 2.0**64}
    assert [info.name for info in record.hparam.metricInfos] == ["train/loss"]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"kind": "x", "step": 1}', '{"kind": "train", "step": "1"}', "\udcff"]
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(CheckpointError, match="metrics.jsonl: line 2 is damaged"):
        MetricsLog(tmp_path, RUN, 5)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_error(tmp_path):
    log = MetricsLog(tmp_path, RUN, 0)
    log._file.close()
    log._file = open("/dev/full", "ab", buffering=0)
    with pytest.raises(CheckpointError, match="cannot write .*metrics.jsonl: No space left on device; make room"):
        log.write("train", 1, {"loss": 1.0})
    log.close()


def test_a_home_that_cannot_be_written_costs_no_log(tmp_path):
    code = "import os, sys\nfrom elmo_chinese.training.metrics import MetricsLog\n"
    code += "log = MetricsLog(sys.argv[1], '0', 0)\n"
    code += "log.write('train', 1, {'loss': 1.0})\nlog.close()\nprint(os.environ['HOME'])"
    environment = {**os.environ, "HOME": "/dev/null/home", "TMPDIR": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "/dev/null/home\n" and read_metrics(tmp_path / "log" / "metrics.jsonl")[0]["loss"] == 1.0
