"""No command touches what it has not made: neither when it succeeds, nor refused, stopped, resumed, or on a full disk.

All of them run in a folder, and read files, whose names are not UTF-8.

For a new command, add a line to `COMMANDS`.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import pytest
from conftest import LM, ROOT

import elmo_embed
import elmo_publish
import lac.corpus
import lac.export
import lac.train
import mrc.train
import preprocess
import train

ODD = os.fsdecode("名".encode("utf-8") + b"\xff")
LAC, MRC = ROOT / "lac" / "data", ROOT / "mrc" / "data"
CPU = ("--use_gpu", "false")
SMALL = ("--embed_size", "4", "--hidden_size", "6", "--batch_size", "8", "--num_steps", "5", "--max_epoch", "0.3")
SAVES = ("--save_interval", "1", "--dev_interval", "1", "--keep", "1", "--load_dir", "auto")
TAGGER = ("--word_emb_dim", "4", "--grnn_hidden_dim", "4", "--batch_size", "20", "--max_epoch", "1", "--keep", "1")
READER = ("--word_emb_dim", "4", "--hidden_size", "4", "--batch_size", "20", "--num_iterations", "1", "--keep", "1")

# What lies in the folder that an output goes to, and in an output that is a folder; "OUT" is the name of the output.
# A name that ends in "/" is a folder with a file in it.
BESIDE = ("OUT.lock", "OUT.tmp", "OUT.notes.tmp", "OUT.old", "OUT.part", ".OUT.tmp", "notes.0123abcd.tmp")
INSIDE = (
    *("best_of_may/", "best_00000001_1a2b3c4d/", "latest.draft.tmp", "best_notes.tmp", "step_notes.tmp"),
    *("step_00000001.tmp", "step_00000001.tmp.bak/", "step_7/", "run.json.bak", "elmo_layers.train", ".writable-1"),
    *("log/vdlrecords.mine.log", "log/vdlrecords.0000000001.log", "log/notes.txt", ".finished/", "summary.txt"),
)
RUN = ("best/", "latest/", "best", "latest", "run.json", "run.json/", "log", "log/metrics.jsonl", "step_00000001/STEP")


class Command(NamedTuple):
    """One command.

    Attributes:
        main: takes the arguments. output: the last argument; what has it as its beginning is the command's own.
        inside: names of bystanders in an output that is a folder. refused: of those that are in the way.
    """

    main: Callable
    arguments: Tuple
    output: str
    inside: Tuple[str, ...] = ()
    refused: Tuple[str, ...] = ()


COMMANDS = {
    "train": Command(
        train.main,
        (*SMALL, *SAVES, *CPU, "--train_path", "TEXT", "--test_path", LM / "dev.txt", "--vocab_path", LM / "vocab.txt",
         "--cache_dir", ".", "--para_save_dir"),
        "run", INSIDE, RUN,
    ),
    "lac.train": Command(
        lac.train.main,
        (*TAGGER, *CPU, "--load_dir", "auto", "--train_data", "LINES", "--dev_data", "LINES", "--model_save_dir"),
        "run", INSIDE, ("best/", "run.json", "log/metrics.jsonl"),
    ),
    "mrc.train": Command(
        mrc.train.main,
        (*READER, *CPU, "--load_dir", "auto", "--train_data", MRC / "dev.json", "--model_save_dir"),
        "run", INSIDE, ("latest/", "run.json", "log/metrics.jsonl"),
    ),
    "sentences": Command(
        preprocess.main,
        ("sentences", "--workers", "1", "--dev_fraction", "0.3", "--shard_size", "200", "--input", "RAW", "--output"),
        "corpus", INSIDE,
        ("summary.json", "summary.png/", ".unfinished/", "train/part_99999.txt", "dev/.writing", "train"),
    ),
    "vocabulary": Command(
        preprocess.main, ("vocabulary", "--input", "TEXT", "--output"), "words.txt", (),
        ("/", "../words.segmenter.json"),
    ),
    "embed.npz": Command(
        elmo_embed.main,
        (*CPU, "--checkpoint", LM / "checkpoint", "--vocab_path", LM / "vocab.txt", "--input", "TEXT", "--output"),
        "v.npz", (), ("/",),
    ),
    "embed.npy": Command(
        elmo_embed.main,
        (*CPU, "--checkpoint", LM / "checkpoint", "--vocab_path", LM / "vocab.txt", "--input", "TEXT", "--output"),
        "v.npy", (), ("/", "../v.offsets.npy", "../v.offsets.npy/"),
    ),
    "publish": Command(
        elmo_publish.main, ("--vocab_path", LM / "vocab.txt", LM / "checkpoint"), "m.tar.gz", (), ("", "/"),
    ),
    "lac.corpus": Command(
        lac.corpus.main, ("--input", "LINES", "--dev_lines", "5", "--output"), "parts", INSIDE,
        ("dev.txt", "test.txt", "tag.dic", "train.txt/"),
    ),
    "lac.export": Command(lac.export.main, ("--model", "TAGGER", "--output"), "exported", (), ("", "/", "notes")),
}  # fmt: skip


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """What stands for the words in capitals: a text, raw text, tagged lines, a tagger."""
    folder = tmp_path_factory.mktemp("materials") / ODD
    folder.mkdir()
    lines = (LAC / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:40]
    (folder / "lines").write_text("".join(lines), encoding="utf-8")
    (folder / "text").write_text("".join(list(open(LM / "train.txt", encoding="utf-8"))[:30]), encoding="utf-8")
    (folder / "raw").write_text("\n\n".join(f"这是第{n}个文件。" for n in range(40)), encoding="utf-8")
    flags = ["--train_data", str(folder / "lines"), "--model_save_dir", str(folder / "tagger")]
    lac.train.main([*TAGGER, *CPU, *flags])
    return {name: folder / name.lower() for name in ("LINES", "TEXT", "RAW", "TAGGER")}


def lay(path: Path) -> None:
    """Put a bystander there that has not been touched for two days; "/" at its end makes a folder, "/STEP" a step's."""
    if path.name == "STEP":
        path = path.with_name("checkpoint.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'{"run": "0123456789abcdef", "mine": 1}')
    for each in (path, path.parent):
        os.utime(each, (time.time() - 2 * 86400,) * 2)


def placed(output: Path, command: Command) -> List[Path]:
    """Return the bystanders that are in nobody's way."""
    beside = [output.with_name(name.replace("OUT", output.name)) for name in BESIDE]
    inside = [output / (name + "mine" if name.endswith("/") else name) for name in command.inside]
    return beside + inside


def contents(folder: Path):
    """Return every file, link and folder there with what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[path] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def attempt(command: Command, output: Path, materials) -> int:
    """Run a command; return its exit code."""
    arguments = [str(materials.get(argument, argument)) for argument in command.arguments]
    try:
        command.main([*arguments, str(output)])
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


def failing(real: Callable, at: int, error: BaseException) -> Callable:
    """Return a function that raises an error the first time it would be called for the `at`th time."""
    calls = []

    def function(*arguments, **more):
        calls.append(arguments)
        if len(calls) == at:
            raise error
        return real(*arguments, **more)

    return function


FAULTS = {
    "fsync": (OSError(28, "No space left on device"), 3),
    "replace": (KeyboardInterrupt(), 2),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_touched_that_a_command_has_not_made(tmp_path, monkeypatch, capsys, materials, name):
    command, tmp_path = COMMANDS[name], tmp_path / (ODD if name != "lac.export" else "名")  # Paddle writes that one
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    output = tmp_path / command.output
    for path in placed(output, command):
        lay(path)
    (tmp_path / "link").symlink_to("target")
    shutil.copy(materials["TEXT"], tmp_path / "target")
    before = contents(tmp_path)

    def look(what):
        after = contents(tmp_path)
        gone = [path.name for path, content in before.items() if after.get(path, "gone") != content]
        assert not gone, (what, gone, capsys.readouterr().err)

    for function, (error, at) in FAULTS.items():
        monkeypatch.setattr(os, function, failing(getattr(os, function), at, error))
        code = attempt(command, output, materials)
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        look(f"{function} failed, code {code}")
    code = attempt(command, output, materials)
    look("success, or refused because of what a fault has left")
    code = code and attempt(command, output.with_name("fresh_" + output.name), materials)
    assert code == 0, capsys.readouterr().err
    look("success")
    attempt(command, output, materials)
    look("again")


REFUSED = [(name, other) for name, command in COMMANDS.items() for other in command.refused]


@pytest.mark.parametrize("name, other", REFUSED)
def test_what_is_in_the_way_is_named_and_stays(tmp_path, monkeypatch, capsys, materials, name, other):
    command = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "deep" / command.output
    path = Path(os.path.normpath(f"{output}/{other}"))
    lay(path / "mine" if other.endswith("/") else path)
    before = contents(tmp_path)
    assert attempt(command, output, materials) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    named = {"notes": output, "STEP": output.parent}.get(path.name, path)
    assert str(named) in error or str(output) in error, error
    assert contents(tmp_path) == before
