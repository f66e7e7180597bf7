"""The page to look at: what VisualDL serves about two short runs, and how it looks in a browser."""

import csv
import io
import sys
from urllib.parse import quote

from elmo_chinese.storage import checkpoint
from elmo_chinese.training.metrics import read_metrics

import numpy as np
import pytest
from conftest import LM
from PIL import Image

import train
from benchmarks import screenshots

FLAGS = [
    *("--train_path", str(LM / "train.txt"), "--test_path", str(LM / "dev.txt"), "--vocab_path", str(LM / "vocab.txt")),
    *("--embed_size", "8", "--num_steps", "5", "--batch_size", "16", "--max_epoch", "2", "--log_interval", "1"),
    *("--use_gpu", "false", "--visualdl_embeddings", "50"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs `narrow` and `wide`; the second was stopped half-way and went on."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    common = [*FLAGS, "--cache_dir", str(folder.parent / "cache")]
    train.main([*common, "--hidden_size", "6", "--para_save_dir", str(folder / "narrow")])
    wide = [*common, "--hidden_size", "12", "--shuffle", "--para_save_dir", str(folder / "wide")]
    train.main([*wide, "--max_epoch", "1"])
    train.main([*wide, "--load_dir", "auto"])
    return folder


@pytest.fixture(scope="module")
def address(runs):
    with screenshots.serve(runs) as address:
        screenshots.ask(address, "runs", at_least=2)
        yield address


def names(run):
    """Return what VisualDL calls a run."""
    return f"runs/{run}/log"


@pytest.mark.parametrize("run", ["narrow", "wide"])
def test_curves_are_those_of_metrics_jsonl(runs, address, run):
    found = screenshots.ask(address, "scalar/tags")
    tags = dict(zip(found["runs"], found["tags"]))[names(run)]
    assert {"train/loss", "train/grad_norm", "dev/perplexity"} <= set(tags)
    records = read_metrics(runs / run / "log" / "metrics.jsonl")
    for tag in ("train/loss", "dev/perplexity"):
        kind, name = tag.split("/")
        points = screenshots.ask(address, f"scalar/list?run={quote(names(run), safe='')}&tag={quote(tag, safe='')}")
        expected = [(record["step"], record[name]) for record in records if record["kind"] == kind]
        assert [point[1] for point in points] == [step for step, _ in expected]
        assert [point[2] for point in points] == pytest.approx([value for _, value in expected])


def test_runs_are_compared_by_flags_and_dev_perplexity(runs, address):
    rows = {row["name"]: row for row in screenshots.ask(address, "hparams/list", at_least=2)}
    assert set(rows) == {names("narrow"), names("wide")}
    for run, size, shuffle in (("narrow", 6, "false"), ("wide", 12, "true")):
        row = rows[names(run)]
        expected = {"hidden_size": size, "shuffle": shuffle, "max_epoch": 2, "global_batch": 16, "vocabulary_size": 60}
        assert {name: row["hparams"][name] for name in expected} == expected
        dev = [r for r in read_metrics(runs / run / "log" / "metrics.jsonl") if r["kind"] == "dev"]
        assert row["metrics"] == {"dev/perplexity": pytest.approx(dev[-1]["perplexity"])}
    found = screenshots.ask(address, "hparams/indicators")
    assert {"name": "hidden_size", "type": "numeric", "values": [6, 12]} in found["hparams"]
    assert found["metrics"] == [{"name": "dev/perplexity", "type": "continuous"}]


@pytest.mark.parametrize("run", ["narrow", "wide"])
def test_the_projector_has_the_most_frequent_words_and_their_vectors(runs, address, run):
    listed = {entry["name"]: entry["shape"] for entry in screenshots.ask(address, "embedding/list", at_least=2)}
    name = names(run) + "/word_vectors"
    assert listed[name] == [50, 8]
    rows = screenshots.fetch(f"{address}/api/embedding/metadata?name={quote(name, safe='')}").decode("utf-8")
    vocabulary = (LM / "vocab.txt").read_text(encoding="utf-8").split()
    assert [row[0] for row in csv.reader(io.StringIO(rows), delimiter="\t")] == vocabulary[3:53]
    vectors = screenshots.fetch(f"{address}/api/embedding/tensor?name={quote(name, safe='')}")
    saved = checkpoint.load_newest(runs / run)[0].model["lstm.embedding"]
    assert np.array_equal(np.frombuffer(vectors, dtype="<f4").reshape(50, 8), saved[3:53])


def colours(png):
    """Return how many pixels of a picture have each colour."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (1400, 1000)
    return {colour: count for count, colour in image.getcolors(2**24)}


@pytest.mark.skipif(screenshots.find_chromium() is None, reason="no chromium here: apt-get install -y chromium")
def test_the_pages_have_something_on_them(address):
    first, second = (41, 50, 225), (0, 204, 136)  # VisualDL's colours of the first run and the next
    with screenshots.browse(screenshots.find_chromium()) as call:
        found = colours(screenshots.curves_page(call, address, "loss$|dev/perplexity$"))
        assert found[first] > 5000 and found[second] > 300 and len(found) > 1000
        found = colours(screenshots.comparison_page(call, address))
        table = screenshots.script(call, "document.querySelector('[role=table]').innerText").split("\n")
        header, rows = table[:4], [dict(zip(table[:4], table[start : start + 4])) for start in (4, 8)]
        assert header[0] == "Trial ID" and header[3] == "dev/perplexity"  # the order of the flags is not fixed
        assert [(row["Trial ID"], row["hidden_size"], row["shuffle"]) for row in rows] == [
            (names("narrow"), "6", "false"),
            (names("wide"), "12", "true"),
        ]
        assert len(found) > 500


def test_logs_are_sorted_into_models_and_taggers(runs, tmp_path):
    logs = [runs / run / "log" for run in ("narrow", "wide")]
    found = screenshots.copy_logs(logs, tmp_path)
    assert sorted(path.name for path in (tmp_path / "language_models").iterdir()) == ["narrow", "wide"]
    assert found["taggers"] == [] and all("embeddings" in tags for tags in found["language_models"])


def test_what_is_no_log_is_named(runs, tmp_path, monkeypatch, capsys):
    if screenshots.find_chromium() is None:
        monkeypatch.setattr(screenshots, "find_chromium", lambda: "chromium")
    log = str(runs / "wide" / "log")
    for logs, message in (([str(runs)], "runs: no vdlrecords"), ([log, log], "another run is called wide too")):
        monkeypatch.setattr(sys, "argv", ["screenshots.py", "--output", str(tmp_path), *logs])
        with pytest.raises(SystemExit) as stopped:
            screenshots.main()
        assert stopped.value.code == 1 and message in capsys.readouterr().err
    monkeypatch.setattr(screenshots, "find_chromium", lambda: None)
    with pytest.raises(SystemExit):
        screenshots.main()
    assert "apt-get install -y chromium" in capsys.readouterr().err
