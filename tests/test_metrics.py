"""metrics.py: records that are read back, and what is said when they cannot be."""

import os

import pytest

from checkpoint import CheckpointError
from metrics import MetricsLog, read_metrics


def test_a_log_goes_on_without_what_came_after(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": step})
    log.sync()
    log.close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "st')  # a kill cut it
    log = MetricsLog(tmp_path, 2)
    log.write("train", 3, {"loss": 30})
    log.close()
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 30]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"kind": "x", "step": 1}', '{"kind": "train", "step": "1"}', "\udcff"]
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(CheckpointError, match="metrics.jsonl: line 2 is damaged"):
        MetricsLog(tmp_path, 5)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_error(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log._file.close()
    log._file = open("/dev/full", "ab", buffering=0)
    with pytest.raises(CheckpointError, match="cannot write .*metrics.jsonl: No space left on device; make room"):
        log.write("train", 1, {"loss": 1.0})
    log.close()
