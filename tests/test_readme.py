"""The READMEs: what they say to type is typed here, and their tables are compared with the code."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

from elmo_chinese.training.metrics import read_metrics
from elmo_chinese.training.options import RETIRED, make_parser

import pytest
from conftest import ROOT, copy_project, run_python

import bilm
from benchmarks.screenshots import ask, serve

READMES = [ROOT / "README.md", ROOT / "README_cn.md"]
DOCS = [
    [ROOT / "docs" / folder / name for folder in ("", "zh")]
    for name in sorted(path.name for path in (ROOT / "docs" / "zh").iterdir())
]


def section(path, title):
    """Return what stands under a heading of the second level."""
    parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(title + "\n"))


def figures(text):
    """Return the numbers in the tables of a page, in order of size."""
    rows = "\n".join(re.findall(r"^\|.*$", text, re.MULTILINE))
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"\([^)]*\.(?:md|png)[^)]*\)", "", rows)))


def headings(path):
    """Return the names by which a page's headings are linked, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a little raw text, after the first three of the five commands."""
    copy = tmp_path_factory.mktemp("project")
    copy_project(copy)
    (copy / "my_texts").mkdir()
    for name in ("01_astronomy.txt", "15_food.txt", "24_customs.txt"):
        shutil.copy(copy / "data" / "text" / name, copy / "my_texts" / name)
    for command in five_commands()[:3]:
        execute(copy, command)
    return copy


def five_commands():
    commands = blocks(section(READMES[0], "Pretrain on your own text"), "sh")[0].strip().split("\n")
    assert len(commands) == 5
    return commands


def execute(folder, command, **more):
    """Run a command as somebody would who has the environment active."""
    environment = {
        **{**os.environ, **more},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_your_own_corpus_in_five_commands(project):
    commands = five_commands()
    assert list((project / "runs" / "mine").glob("step_*"))
    assert "ElmoEncoder" in execute(project, commands[4])
    assert "--logdir" in execute(project, commands[3].split(" ")[0] + " --help")


def test_visualdl_serves_the_numbers_of_metrics_jsonl(project):
    folder = project / "runs" / "mine" / "log"
    with serve(folder) as address:
        run = urllib.parse.quote(ask(address, "runs")[0], safe="")
        for kind, name in [("dev", "perplexity"), ("dev", "perplexity_backward"), ("train", "loss")]:
            points = ask(address, f"scalar/list?run={run}&tag={kind}/{name}")
            expected = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == kind]
            assert [point[1] for point in points] == [record["step"] for record in expected]
            assert [point[2] for point in points] == pytest.approx([record[name] for record in expected])


def test_elmo_in_your_own_model(project, installed, tmp_path):
    program = "\n".join(blocks(section(READMES[0], "ELMo in your own model"), "python"))
    shutil.copytree(project / "runs" / "mine", project / "checkpoints", dirs_exist_ok=True)
    program = (
        program.replace("/path/to/this/clone", str(project)) + "\nprint(list(vectors.shape), list(features.shape))\n"
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    assert execute(tmp_path, "python program.py", PYTHONPATH=str(installed)).endswith("[2, 4, 128] [2, 4, 256]\n")
    assert (tmp_path / "my_elmo" / "vocabulary.txt").is_file()


def test_vectors_of_a_text(project, installed):
    shutil.copytree(project / "runs" / "mine", project / "checkpoints", dirs_exist_ok=True)
    text = READMES[0].read_text(encoding="utf-8")
    (command,) = re.findall(r"^elmo-embed --checkpoint checkpoints.*$", text, re.MULTILINE)
    for typed in (f"{installed}/bin/{command}", command.replace("elmo-embed", "python embed.py")):
        assert "85 lines" in execute(project, typed, PYTHONPATH=str(installed))
        (project / "vectors.npz").unlink()


@pytest.mark.parametrize("path", DOCS[[pair[0].name for pair in DOCS].index("flags.md")], ids=["English", "Chinese"])
def test_the_table_of_flags_is_the_parsers(path):
    rows = re.findall(r"^\| `(--\w+)` \| ([^|]*?) *\|", path.read_text(encoding="utf-8"), re.MULTILINE)
    defaults = make_parser("").defaults.items()
    expected = {f"--{name}": "" if default in (None, "") else str(default) for name, default in defaults}
    assert dict(rows) == expected
    assert all(f"`{name}`" in path.read_text(encoding="utf-8") for name in RETIRED)


@pytest.mark.parametrize("pair", [READMES, *DOCS], ids=lambda pair: pair[0].name)
def test_both_languages_have_the_same_code_and_figures(pair):
    english, chinese = (path.read_text(encoding="utf-8") for path in pair)
    for language in ("sh", "python", "text"):
        assert blocks(english, language) == blocks(chinese, language)
    assert figures(english) == figures(chinese)


def test_every_page_is_linked_and_all_links_lead_somewhere():
    linked = set()
    for path in [*READMES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for name, heading in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / name).exists(), f"{path}: {name}"
            assert not heading or heading in headings(path.parent / name if name else path), f"{path}: #{heading}"
            if not {path.parent.name, (path.parent / name).resolve().parent.name} == {"docs", "zh"}:
                linked.add((path.parent / name).resolve())
    assert set((ROOT / "docs").rglob("*.md")) <= linked
    languages = [(pair[0], f"[中文](zh/{pair[0].name})") for pair in DOCS]
    languages += [(pair[1], f"[English](../{pair[0].name})") for pair in DOCS]
    assert [path for path, link in languages if link not in path.read_text(encoding="utf-8")] == []


def test_the_pages_of_the_interface_hold_every_public_name(tmp_path):
    pytest.importorskip("pdoc")
    assert run_python("benchmarks/api.py", "--output", tmp_path).returncode == 0
    page = (tmp_path / "bilm.html").read_text(encoding="utf-8")
    for name in bilm.__all__:
        assert f'id="{name}"' in page and getattr(bilm, name).__doc__, name
    assert 'id="LAC.run"' in (tmp_path / "lac" / "release" / "interface.html").read_text(encoding="utf-8")


def test_the_reader_benchmark_runs():
    finished = run_python("benchmarks/reader.py", "--words", "200000", "--batches", "50")
    figures = json.loads(finished.stdout)
    assert figures["encoded_words_per_cpu_s"] > 0 and figures["batched_tokens_per_cpu_s"] > 0
