"""Files that are cut, changed, gone or from elsewhere, and disks that are full: found, said, and gone on from."""

import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from elmo_chinese.files import SUMS_FILE, sha256
from elmo_chinese.storage import checkpoint
from elmo_chinese.text import token_cache
from elmo_chinese.text.reading import InputError
from elmo_chinese.text.vocabulary import Vocabulary

import numpy as np
import pytest
from conftest import LM, ROOT
from test_train import SMALL, assert_same_run, figures, last

import elmo_embed
import train
from reader import BidirectionalReader

RUN = [*SMALL, "--batch_size", "8", "--max_epoch", "1", "--log_interval", "1", "--load_dir", "auto"]
DAMAGES = ("flipped", "truncated", "emptied", "missing")


def spoil(path, damage, draw):
    """Damage a file; it is never what it was before."""
    content = path.read_bytes()
    place = draw.randrange(len(content))
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
    else:
        path.write_bytes(content[:place] if damage == "truncated" else b"")


def run(capfd, *arguments):
    """Run train.py here; return its exit code, what it printed, and its errors."""
    capfd.readouterr()
    code = 0
    try:
        train.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = stopped.code
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return code, printed.out, printed.err


def clear_stop(code, errors):
    """Say whether an end was that of a user error: code 1 and one message."""
    return code == 1 and errors.count("error: ") == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Flags and folder of a run with checkpoints at 4 and 8 that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*RUN, "--cache_dir", str(folder / "cache")]
    train.main([*arguments, "--para_save_dir", str(folder / "run")])
    return arguments, folder / "run"


# --- full disks ---


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many KB, or gives it so many."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size, again=False):
        how = "remount," if again else ""
        options = ["-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", str(folder)]
        done = subprocess.run(["mount", *options], capture_output=True)
        if done.returncode:
            pytest.skip("only root may mount a disk here")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_full_disk(whole, small_disk, capfd, record_property):
    arguments, undisturbed = whole
    where = {}
    for size in (8, 20, 40, 60, 76, 88, 100, 124, 148, 172, 196):
        disk = small_disk(size)
        mine = [*arguments, "--cache_dir", disk / "cache", "--para_save_dir", disk / "run"]
        code, _, errors = run(capfd, *mine)
        if code:
            assert clear_stop(code, errors) and "No space left on device" in errors, errors
            where.setdefault(errors.split(str(disk))[1].split()[0].split("/")[1], []).append(size)
        small_disk(65536, again=True)
        code, _, errors = run(capfd, *mine)
        assert code == 0, errors
        assert_same_run(undisturbed, disk / "run")
        subprocess.run(["umount", str(disk)], check=True)
    tried = sum(map(len, where.values()))
    assert {"cache", "run"} <= set(where) and tried >= 6, where
    outcome = "one message that names the file; with room made, the run goes on and ends like an undisturbed one"
    record_property("fault", ("full disk (a tmpfs)", tried, outcome))


def test_quota_on_file_size(whole, tmp_path, record_property):
    arguments, undisturbed = whole
    # In a process of its own as those below: the names of parameters, in a checkpoint, depend on what was made before.
    alone = [sys.executable, "train.py", *arguments, "--para_save_dir", str(tmp_path / "alone")]
    subprocess.run(alone, cwd=ROOT, check=True, capture_output=True)
    content = sorted(path.stat().st_size for path in last(tmp_path / "alone").path.iterdir())
    tried = 0
    for size in (content[-1] - 1, content[-2] + 1, 400):
        root = tmp_path / f"run{size}"
        limit = lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))  # noqa: E731
        command = [sys.executable, "train.py", *arguments, "--para_save_dir", str(root)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", preexec_fn=limit)
        assert clear_stop(done.returncode, done.stderr) and "File too large" in done.stderr, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        tried += 1
        train.main([*arguments, "--para_save_dir", str(root)])
        assert_same_run(undisturbed, root)
    record_property("fault", ("quota on the size of a file", tried, "the same"))


def test_full_disk_under_the_vectors(whole, small_disk, capsys, record_property):
    text = LM / "train.txt"
    for size in (4, 8, 12, 16):
        disk = small_disk(size)
        model = ["--checkpoint", str(last(whole[1]).path), "--output", str(disk / "vectors.npz")]
        with pytest.raises(SystemExit) as stopped:
            elmo_embed.main([*model, "--input", str(text), "--layers", "all"])
        errors = capsys.readouterr().err
        assert clear_stop(stopped.value.code, errors) and "vectors.npz" in errors
        assert not any(disk.iterdir())
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    record_property(
        "fault", ("full disk under elmo_embed.py", 4, "one message before or while it is written, nothing left")
    )


# --- damaged checkpoints ---


@pytest.mark.parametrize("name", [*checkpoint.PAYLOAD, SUMS_FILE, "latest", "best"])
def test_a_damaged_checkpoint(whole, tmp_path, capfd, record_property, name):
    arguments, undisturbed = whole
    draw, tries = random.Random(name), 0
    for damage in DAMAGES:
        for _ in range(3 if damage in ("flipped", "truncated") else 1):
            root = Path(shutil.copytree(undisturbed, tmp_path / f"run{tries}"))
            folder = root if name in ("latest", "best") else root / "step_00000008"
            spoil(folder / name, damage, draw)
            if folder != root:
                code, _, errors = run(capfd, *arguments, "--para_save_dir", root, "--load_dir", folder)
                assert clear_stop(code, errors) and str(folder) in errors
            code, printed, errors = run(capfd, *arguments, "--para_save_dir", root)
            fell_back = folder != root
            if code and not fell_back:  # it may be anybody's file: it is not written over
                assert clear_stop(code, errors) and f"{root / name} is in the way" in errors
                (root / name).unlink()
                code, printed, errors = run(capfd, *arguments, "--para_save_dir", root)
            assert code == 0, errors
            if fell_back:
                assert f"warning: {folder}" in printed or f"warning: cannot read {folder}" in printed
            assert ("step 4," in printed) == fell_back
            assert_same_run(undisturbed, root)
            tries += 1
    what = (
        "taken for somebody else's: refused, and not needed"
        if name in ("latest", "best")
        else "named, and the one before is used"
    )
    record_property("fault", (f"`{name}` of a checkpoint flipped, truncated, emptied, missing", tries, what))


def test_a_damaged_model_gives_no_vectors(whole, tmp_path, capsys, record_property):
    draw, tries = random.Random(3), 0
    for name in (checkpoint.MODEL_FILE, checkpoint.VOCABULARY_FILE, checkpoint.INFO_FILE, SUMS_FILE):
        for damage in DAMAGES:
            folder = Path(shutil.copytree(last(whole[1]).path, tmp_path / f"model{tries}"))
            spoil(folder / name, damage, draw)
            output = tmp_path / "vectors.npz"
            with pytest.raises(SystemExit) as stopped:
                elmo_embed.main(["--checkpoint", str(folder), "--input", str(LM / "dev.txt"), "--output", str(output)])
            errors = capsys.readouterr().err
            assert clear_stop(stopped.value.code, errors) and name in errors or damage == "missing", errors
            assert not output.exists()
            tries += 1
    record_property("fault", ("the same, read by embed.py", tries, "the file is named, nothing is written"))


# --- the reader's cache, and text that changes ---


def caches(arguments):
    folder = Path(arguments[arguments.index("--cache_dir") + 1])
    return [entry for entry in folder.iterdir() if entry.is_dir()]


def test_a_damaged_cache(whole, tmp_path, capfd, record_property):
    arguments, undisturbed = whole
    draw, tries = random.Random(4), 0
    for name in (*token_cache.ARRAYS, token_cache.INDEX):
        for damage in DAMAGES:
            cache = tmp_path / f"cache{tries}"
            shutil.copytree(caches(arguments)[0].parent, cache)
            mine = [*arguments, "--cache_dir", cache, "--para_save_dir", tmp_path / f"run{tries}"]
            folder = draw.choice(caches(list(map(str, mine[len(arguments) :]))))
            spoil(folder / name, damage, draw)
            code, printed, _ = run(capfd, *mine)
            assert code == 0 and f"warning: {folder}" in printed and "it is made anew" in printed
            assert_same_run(undisturbed, tmp_path / f"run{tries}")
            tries += 1
    outcome = "a warning names it, it is made anew, the run is the undisturbed one"
    record_property("fault", ("a file of the reader's cache flipped, truncated, emptied, missing", tries, outcome))


def forge(folder, vocabulary, tokens, entries):
    """Put other word ids into a folder of the cache, and an index that fits them."""
    (folder / "tokens.i4").write_bytes(tokens.astype("<i4").tobytes())
    token_cache._write_index(folder, vocabulary, [sha256(folder / name) for name in token_cache.ARRAYS], entries)
    os.utime(folder / "tokens.i4", (1, 1))  # it came from elsewhere


def test_a_cache_from_elsewhere(whole, tmp_path, capfd, record_property):
    arguments, undisturbed = whole
    other = tmp_path / "other.txt"
    words = Vocabulary(LM / "vocab.txt").words
    other.write_text("\n".join([*words[:3], *reversed(words[3:])]) + "\n", encoding="utf-8")
    cache, words = tmp_path / "cache", Vocabulary(LM / "vocab.txt")
    theirs = token_cache.encode([LM / "train.txt"], Vocabulary(other), cache)
    mine = [*arguments, "--cache_dir", cache, "--para_save_dir"]
    assert run(capfd, *mine, tmp_path / "a")[0] == 0
    assert_same_run(undisturbed, tmp_path / "a")  # made anew beside that of the other vocabulary
    ours = token_cache.encode([LM / "train.txt"], words, cache)
    assert not np.array_equal(ours.tokens, theirs.tokens)
    folders, messages = [text.mapped[0][0].parent for text in (ours, theirs)], []
    shutil.rmtree(folders[0])
    shutil.copytree(folders[1], folders[0])  # put in place of ours
    for attempt in range(2):
        if attempt:
            forge(folders[0], words, theirs.tokens + 10, ours.entries)
        code, printed, _ = run(capfd, *mine, tmp_path / f"b{attempt}")
        assert code == 0 and "it is made anew" in printed
        assert_same_run(undisturbed, tmp_path / f"b{attempt}")
        messages.append(printed)
    assert "with another vocabulary" in messages[0] and "ids beyond the 60 words" in messages[1]
    outcome = "encoded anew beside it; put in the place of the right one, it is made anew"
    record_property("fault", ("a cache from another vocabulary", 3, outcome))


def test_a_cache_written_by_two_processes_at_once(tmp_path, record_property):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    text = (LM / "train.txt").read_text(encoding="utf-8")
    for number in range(3):
        (corpus / f"{number}.txt").write_text(text * (200 + number), encoding="utf-8")
    script = (
        "import sys, time; from reader import BidirectionalReader, Vocabulary; words = Vocabulary(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(BidirectionalReader(sys.argv[2], words, 4, 5, cache_dir=sys.argv[3]).corpus)"
    )
    tries = 6
    for number in range(tries):
        cache = tmp_path / f"cache{number}"
        command = [sys.executable, "-c", script, str(LM / "vocab.txt"), str(corpus), str(cache)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        both = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        printed = [process.communicate() for process in both]
        assert [process.returncode for process in both] == [0, 0], printed
        assert len({out for out, _ in printed}) == 1 and len(list(cache.iterdir())) == 1
        again = BidirectionalReader(corpus, Vocabulary(LM / "vocab.txt"), 4, 5, cache_dir=cache)
        assert [again.corpus + "\n"] == list({out for out, _ in printed})
    record_property("fault", ("a cache written by two processes at once", tries, "both read the same; nothing is left"))


def test_killed_while_the_cache_is_written(tmp_path, record_property):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text((LM / "train.txt").read_text(encoding="utf-8") * 3000, encoding="utf-8")
    script = (
        "import sys; from reader import *; token_cache.encode([Path(sys.argv[1])], Vocabulary(sys.argv[2]), Path('.'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(5):
        command = [sys.executable, "-c", script, str(corpus), str(LM / "vocab.txt")]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        until = time.time() + 60
        while time.time() < until and not any(path.stat().st_size for path in tmp_path.glob("*.tmp/tokens.i4")):
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert len(list(tmp_path.glob("*.tmp"))) == 1  # that of the one before is gone
    text = token_cache.encode([corpus], Vocabulary(LM / "vocab.txt"), tmp_path)
    assert len(text.starts) == 1 + corpus.read_text(encoding="utf-8").count("\n")
    assert not list(tmp_path.glob("*.tmp"))
    record_property("fault", ("`kill -9` while the cache is written", 5, "made anew, the half one is gone"))


def changed(path):
    path.write_bytes(path.read_bytes()[:-40] + b"\n" * 40)


def shortened(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_place(path):
    os.truncate(path, 0)


def replaced(path):
    path.with_name("beside").write_bytes(path.read_bytes()[::-1])
    os.replace(path.with_name("beside"), path)


def of_text(cache):
    """Return the folder of the cache that the training text, not the dev text, is in."""
    return next(path.parent for path in cache.glob("*/index.json") if "text.txt" in path.read_text(encoding="ascii"))


@pytest.mark.parametrize("what", ["text", "tokens.i4", "starts.i8"])
def test_what_is_trained_on_changes_under_way(whole, tmp_path, capfd, monkeypatch, record_property, what):
    arguments, undisturbed = whole
    loss, tries = train.Pretraining.loss, 0
    for damage in (changed, shortened, cut_in_place, replaced, Path.unlink):
        for moment in (2, 6):
            text = Path(shutil.copy(LM / "train.txt", tmp_path / "text.txt"))
            cache, root = tmp_path / f"cache{tries}", tmp_path / f"run{tries}"
            mine = [*arguments, "--train_path", text, "--cache_dir", cache, "--para_save_dir", root]

            def disturbed(self, batch, states, step, moment=moment, damage=damage, text=text, cache=cache):
                if step == moment:
                    damage(text if what == "text" else of_text(cache) / what)
                return loss(self, batch, states, step)

            monkeypatch.setattr(train.Pretraining, "loss", disturbed)
            code, _, errors = run(capfd, *mine)
            monkeypatch.undo()
            assert clear_stop(code, errors) and "while it was being used" in errors, errors
            assert ("text.txt" if what == "text" else what) in errors and len(figures(root)) <= moment + 1
            shutil.copy(LM / "train.txt", text)
            if what != "text":
                shutil.rmtree(cache)
            code, _, errors = run(capfd, *mine)
            assert code == 0, errors
            assert_same_run(undisturbed, root)
            tries += 1
    name = "the text" if what == "text" else f"`{what}` of its cache"
    outcome = "named at the next step, a clear stop; put back, the run goes on and ends like an undisturbed one"
    record_property("fault", (f"{name} changes or vanishes under way", tries, outcome))


def test_touched_or_copied_text_is_the_same_text(whole, tmp_path, capfd, monkeypatch, record_property):
    arguments, undisturbed = whole
    text, loss = Path(shutil.copy(LM / "train.txt", tmp_path / "text.txt")), train.Pretraining.loss

    def disturbed(self, batch, states, step):
        if step == 3:
            os.utime(text, (1, 1))
        if step == 5:
            text.unlink()
            shutil.copy(LM / "train.txt", text)
        return loss(self, batch, states, step)

    monkeypatch.setattr(train.Pretraining, "loss", disturbed)
    mine = [*arguments, "--train_path", text, "--cache_dir", tmp_path / "cache", "--para_save_dir", tmp_path / "run"]
    assert run(capfd, *mine)[0] == 0
    assert_same_run(undisturbed, tmp_path / "run")
    record_property("fault", ("the text is touched, or copied over by itself", 2, "no stop"))


def test_text_that_changes_while_it_is_encoded(tmp_path, monkeypatch, record_property):
    write = token_cache._encode_file
    for damage in (changed, shortened, replaced):
        text = Path(shutil.copy(LM / "train.txt", tmp_path / "text.txt"))

        def disturbed(path, vocabulary, writer, damage=damage):
            damage(path)
            write(path, vocabulary, writer)

        monkeypatch.setattr(token_cache, "_encode_file", disturbed)
        with pytest.raises(InputError, match="changed while it was read|not UTF-8"):
            token_cache.encode([text], Vocabulary(LM / "vocab.txt"), tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())
    record_property("fault", ("the text changes while it is encoded", 3, "named; nothing gets into the cache"))
