"""200 malformed inputs made from a seed: never a traceback, and never a success that is not one.

Each input is a sound file with a few random changes; before them comes the sound one itself, which must succeed. A
command either ends with one error, or what it made of the input is what an independent reading of the changed file
makes of it.
"""

import codecs
import json
import random
import re
import shutil
from pathlib import Path

from elmo_chinese.files import write_sums
from elmo_chinese.storage import checkpoint, contents
from elmo_chinese.storage.pretrained import read_pretrained

import numpy as np
import paddle
import pytest
from conftest import LM, ROOT
from test_train import SMALL, last

import elmo_embed
import lac.train
import train
from lac import corpus, evaluate, predict

SEED, EACH = 20, 40
RUN = [*SMALL, "--batch_size", "8", "--n_negative_samples_batch", "5"]
# What text files have in them when something went wrong on the way.
ODDITIES = [
    b"", b"\0", b"\r\n", b"\n\n", b"\n", b"\t", b" ", b"/", b"]nt", b"[", "\ufeff".encode(), "\u3000".encode(),
    "\u2028".encode(), "\x85".encode(), "\x0b".encode(), "的".encode("gb18030"), "的".encode("utf-16"), b"\xff",
    b"\xed\xa0\x80", b"\xf0\x9f", "🀄".encode(), b"<S>", b"</S>\n", b"<UNK>", b"a" * 10**5, "的 ".encode() * 1000,
    b"\x80\x04}",
]  # fmt: skip

SEPARATORS = [b"\n", b"\r\n", b"\t", b" ", b"/", b"[", b"]", "的".encode(), "\u3000".encode(), "\u2028".encode()]


def between_characters(content, place):
    """Return the next place at which no UTF-8 character is cut."""
    while place < len(content) and content[place] & 0xC0 == 0x80:
        place += 1
    return place


def changed(content, draw, text=False):
    """Return bytes with one to three random changes; never what it was. Text mostly stays UTF-8."""
    found = content
    while found == content:
        for _ in range(draw.randint(1, 3)):
            place, end = sorted(draw.randrange(len(found) + 1) for _ in range(2))
            end = min(end, place + draw.choice([1, 8, 200, len(found)]))
            if text and draw.random() < 0.8:
                place, end = between_characters(found, place), between_characters(found, end)
                if draw.random() < 0.4:
                    found = found[:place] + draw.choice(SEPARATORS) + found[place:]
                    continue
            found = draw.choice(
                [
                    lambda f, a, b: f[:a] + bytes([draw.randrange(256)]) + f[a + 1 :],
                    lambda f, a, b: f[:a] + f[b:],
                    lambda f, a, b: f[:b] + f[a:b] + f[b:],
                    lambda f, a, b: f[:a] + draw.choice(ODDITIES) + f[a:],
                    lambda f, a, b: f[:a] + bytes(draw.randrange(256) for _ in range(min(b - a, 20))) + f[a:],
                    lambda f, a, b: f[:a] if draw.random() < 0.3 else f[a:] + f[:a],
                ]
            )(found, place, end)
    return found


def run(capfd, main, arguments):
    """Run a command here; return whether it succeeded, what it printed, and its errors."""
    capfd.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert code == 0 or (code == 1 and printed.err.count("error: ") == 1), printed.err
    return code == 0, printed.out, printed.err


def lines_of(content):
    """Return the lines of a file as the formats have them; `ValueError` if it is not UTF-8."""
    text = content.decode("utf-8")
    text = text[1:] if text.startswith(codecs.BOM_UTF8.decode()) else text
    lines = (text[:-1] if text.endswith("\n") else text).split("\n") if content else []
    return [line[:-1] if line.endswith("\r") else line for line in lines]


def recorded(record_property, name, tried, good):
    outcome = f"{tried - good} clear errors; {good} were still sound, and read as an independent reading does"
    record_property("fault", (f"malformed {name}", tried, outcome))


def test_vocabularies(tmp_path, capfd, record_property):
    draw, good, path = random.Random(SEED), -1, tmp_path / "vocabulary.txt"
    for number in range(EACH + 1):
        sound = (LM / "vocab.txt").read_bytes()
        path.write_bytes(changed(sound, draw, True) if number else sound)
        root = tmp_path / f"run{number}"
        mine = ["--vocab_path", path, "--max_epoch", "0.1", "--para_save_dir", root, "--cache_dir", tmp_path / "cache"]
        success, _, errors = run(capfd, train.main, [*RUN, *mine])
        if not success:
            assert number and ("vocabulary.txt" in errors or "vocabulary" in errors)
            continue
        words = [line.strip() for line in lines_of(path.read_bytes())]
        while not words[-1]:
            words.pop()
        assert len(set(words)) == len(words) and all(words) and {"<S>", "</S>", "<UNK>"} <= set(words)
        assert last(root).model["lstm.embedding"].shape[0] == len(words)
        good += 1
    recorded(record_property, "vocabularies", EACH, good)


def test_corpora(tmp_path, capfd, record_property):
    draw, good, path = random.Random(SEED + 1), -1, tmp_path / "corpus.txt"
    for number in range(EACH + 1):
        sound = (LM / "train.txt").read_bytes()
        path.write_bytes(changed(sound, draw, True) if number else sound)
        root = tmp_path / f"run{number}"
        mine = ["--train_path", path, "--max_epoch", "0.1", "--para_save_dir", root, "--cache_dir", tmp_path / "cache"]
        success, printed, errors = run(capfd, train.main, [*RUN, *mine])
        if not success:
            assert number and ("corpus.txt" in errors or "the training text has" in errors)
            continue
        words = sum(len(line.split()) + 1 for line in lines_of(path.read_bytes()))
        assert f"text        {words:,} words an epoch" in printed
        good += 1
    recorded(record_property, "corpora", EACH, good)


# --- checkpoints ---


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The folder of a sound checkpoint at step 4 of 8, and the flags of its run."""
    folder = tmp_path_factory.mktemp("sound")
    mine = [*RUN, "--max_epoch", "1", "--cache_dir", str(folder / "cache")]
    train.main([*mine, "--para_save_dir", str(folder / "run")])
    return folder / "run" / "step_00000004", mine


def spoil_arrays(arrays, draw):
    """Change named arrays so that they cannot be right any more."""
    name = draw.choice(sorted(arrays))
    array = arrays.pop(name)
    other = {
        "drop": {},
        "rename": {name + "x": array},
        "no name": {"": array},
        "shape": {name: np.zeros([*array.shape, 2], array.dtype)},
        "none left": {name: array[:0] if array.ndim else np.zeros(0)},
        "type": {name: array.astype("<U8") if draw.random() < 0.5 else np.zeros(array.shape, complex)},
    }
    arrays.update(other[draw.choice(sorted(other))])


def spoil_inside(folder, draw):
    """Change one file of a checkpoint in its own form, and forge the checksums; return whether that must be found."""
    name, must_be_found = draw.choice([*checkpoint.PAYLOAD, checkpoint.INFO_FILE]), True
    path = folder / name
    if draw.random() < 0.3 and name != checkpoint.VOCABULARY_FILE:
        path.write_bytes(changed(path.read_bytes(), draw))  # may be a number that became another one
        must_be_found = False
    elif name in (checkpoint.MODEL_FILE, checkpoint.OPTIMIZER_FILE):
        arrays = contents.read_arrays(path)
        spoil_arrays(arrays, draw)
        paddle.save(arrays, str(path))
    elif name == checkpoint.STATE_FILE:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        spoil_arrays(arrays, draw)
        np.savez(path, **arrays)
    elif name == checkpoint.VOCABULARY_FILE:
        path.write_bytes(changed(path.read_bytes(), draw))  # train.py goes by the checksum of --vocab_path
        must_be_found = False
    else:
        info = json.loads(path.read_text(encoding="utf-8"))
        part = draw.choice([info, info, info["progress"], info["flags"]])
        key = draw.choice(sorted(part))
        if draw.random() < 0.3:
            del part[key]
        else:
            part[key] = draw.choice([None, -1, 2**70, 1e400, "x", "", [], {}, [1], True])
        path.write_text(json.dumps(info), encoding="utf-8")
        must_be_found = False  # much of it is for people to read
    write_sums(folder, checkpoint.PAYLOAD)
    return must_be_found


def test_checkpoints(sound, tmp_path, capfd, record_property):
    draw, good = random.Random(SEED + 2), -1
    for number in range(EACH + 1):
        folder, must_be_found = Path(shutil.copytree(sound[0], tmp_path / "runs" / f"step_{number:08d}")), False
        if number % 2:
            path = folder / draw.choice([*checkpoint.PAYLOAD, "SHA256SUMS"])
            path.write_bytes(changed(path.read_bytes(), draw))
            must_be_found = path.name != "SHA256SUMS"  # may have got a line more
        elif number:
            must_be_found = spoil_inside(folder, draw)
        root = tmp_path / f"run{number}"
        success, _, errors = run(capfd, train.main, [*sound[1], "--load_dir", folder, "--para_save_dir", root])
        assert not (success and must_be_found) and (success or number)
        if success:
            ended = last(root)
            for name, array in checkpoint.load(folder).model.items():
                assert ended.model[name].shape == array.shape and ended.info["step"] == 8
            good += 1
        else:
            position = "position" in errors or "shuffle and seed" in errors or "training text" in errors
            assert str(folder) in errors or position or "step 5: loss is" in errors, errors
    outcome = f"{EACH - good} clear errors; {good} were changed where nothing is taken from, and trained on to the end"
    record_property("fault", ("malformed checkpoints, half of them with forged checksums", EACH, outcome))


# --- Fluid folders ---


def test_fluid_folders(tmp_path, capfd, record_property):
    draw, good = random.Random(SEED + 3), -1
    wanted = [f"lstmp_{n}.{part}" for n in range(4) for part in ("w_0", "w_1", "b_0")]
    wanted += ["embedding_para", *(f"{direction}_layer{n}_gate_w" for direction in ("fw", "bw") for n in (1, 2))]
    whole, _ = read_pretrained(LM / "checkpoint", wanted)
    kinds = ["bytes", "bytes", "header", "header", "numbers", "numbers", "missing", "folder", "other"]
    for number in range(EACH + 1):
        folder = Path(shutil.copytree(LM / "checkpoint", tmp_path / f"fluid{number}"))
        path = folder / draw.choice(wanted)
        before = path.read_bytes()
        start = len(before) - whole[path.name].nbytes
        kind = draw.choice(kinds) if number else "unchanged"
        path.unlink()
        if kind == "unchanged":
            path.write_bytes(before)
        elif kind == "folder":
            path.mkdir()
        elif kind == "other":
            path.write_bytes((folder / draw.choice(["softmax_bias", "embedding_para_moment_0"])).read_bytes())
        elif kind == "bytes":
            path.write_bytes(changed(before, draw))
        elif kind == "header":
            path.write_bytes(changed(before[:start], draw) + before[start:])
        elif kind == "numbers":
            place = draw.randrange(start, len(before))
            path.write_bytes(before[:place] + bytes([before[place] ^ 1 << draw.randrange(8)]) + before[place + 1 :])
        output = tmp_path / f"vectors{number}.npz"
        mine = ["--checkpoint", folder, "--vocab_path", LM / "vocab.txt", "--input", LM / "dev.txt", "--output", output]
        success, _, errors = run(capfd, elmo_embed.main, mine)
        assert success == output.exists()
        if not success:
            assert number and (path.name in errors or str(folder) in errors), errors
            continue
        arrays, _ = read_pretrained(folder, wanted)
        content = path.read_bytes()
        assert arrays[path.name].shape == whole[path.name].shape
        assert arrays[path.name].tobytes() == content[len(content) - whole[path.name].nbytes :]
        assert all(np.array_equal(arrays[name], whole[name]) for name in wanted if name != path.name)
        good += 1
    outcome = f"{EACH - good} clear errors; in {good} only numbers became other numbers (Fluid has no checksums)"
    record_property("fault", ("malformed Fluid folders", EACH, outcome))


# --- LAC ---


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """The folder of a small tagger."""
    folder, data = tmp_path_factory.mktemp("tagger"), ROOT / "lac" / "data"
    lines = (data / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.txt").write_text("".join(lines[:40]), encoding="utf-8")
    sizes = ["--word_emb_dim", "8", "--grnn_hidden_dim", "6", "--max_epoch", "1", "--use_gpu", "false"]
    files = ["--train_data", str(folder / "train.txt"), "--label_dict_path", str(data / "tag.dic")]
    lac.train.main([*files, *sizes, "--model_save_dir", str(folder / "run")])
    return folder / "run"


def some_lines(name, count=30):
    text = (ROOT / "lac" / "data" / name).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(text[:count]).encode("utf-8")


def tabbed(lines):
    """Return lines `word/tag …` as lines `words<TAB>tags<TAB>word/tag …`."""
    rows = [[item.rpartition("/") for item in line.split()] for line in lines.decode("utf-8").splitlines()]
    fields = (
        [[word for word, _, _ in row], [tag for _, _, tag in row], ["".join(item) for item in row]] for row in rows
    )
    return "".join("\t".join(map(" ".join, line)) + "\n" for line in fields).encode("utf-8")


def gold_words(line):
    """Return how many gold words a usable line has, after checking that its parts belong together."""
    fields = line.rstrip("\r").split("\t")
    assert len(fields) in (1, 3) or len(fields[0].split()) == len(fields[1].split())
    if len(fields) == 2:
        return None  # the tags decide
    gold = [token.rpartition("/") for token in fields[-1].split()]
    assert all(word and tag for word, _, tag in gold)
    if len(fields) == 3:
        assert len(fields[0].split()) == len(fields[1].split()) > 0
        assert "".join(fields[0].split()) == "".join(word for word, _, _ in gold)
    elif re.search(r"(^|\s)\[[^/\s]|\S\s\s", line):
        return None  # brackets or names are joined
    return len(gold)


def test_lac_lines(tagger, tmp_path, capfd, monkeypatch, record_property):
    draw, good, path = random.Random(SEED + 4), -4, tmp_path / "lines.txt"
    for number in range(EACH + 4):
        if number % 4 == 0:  # raw text
            sound = re.sub(rb"/\S+| ", b"", some_lines("dev.txt"))
            path.write_bytes(changed(sound, draw, True) if number > 3 else sound)
            success, printed, errors = run(capfd, predict.main, ["--model", tagger, "--format", "json", path])
            if success:
                joined = ["".join(json.loads(line)["words"]) for line in printed.split("\n")[:-1]]
                assert joined == lines_of(path.read_bytes())
        elif number % 4 == 1:  # People's Daily
            sound = some_lines("dev.txt")
            path.write_bytes(changed(sound, draw, True) if number > 3 else sound)
            success, printed, errors = run(capfd, corpus.main, ["--input", path, "--output", tmp_path / "made"])
            if success:
                made = (tmp_path / "made" / "train.txt").read_text(encoding="utf-8").split("\n")[:-1]
                usable = [line for line in lines_of(path.read_bytes()) if line.strip()]
                assert len(made) <= len(usable)
                for line in made:
                    assert gold_words(line)
        else:  # tagged lines
            sound = some_lines("dev.txt") if number % 4 == 2 else tabbed(some_lines("dev.txt"))
            path.write_bytes(changed(sound, draw, True) if number > 3 else sound)
            mine = ["--model", tagger, "--test_data", path, "--json"]
            success, printed, errors = run(capfd, evaluate.main, mine)
            if success:
                counts = [gold_words(line) for line in lines_of(path.read_bytes()) if line.strip()]
                if None not in counts:
                    assert json.loads(printed)["overall"]["gold"] == sum(counts)
        if not success:
            assert re.search(r"lines\.txt", errors), errors
        assert success or number > 3
        good += success
    recorded(record_property, "lines for LAC (raw, tagged, People's Daily)", EACH, good)
