"""elmo_chinese/files.py: written whole, by one at a time; what sha256sum reads, and damage that is named."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from elmo_chinese import files
from elmo_chinese.files import SUMS_FILE, damage, write_sums

import pytest


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "名字 b"):
        (tmp_path / name).write_bytes(name.encode("utf-8") * 2**20)
    return tmp_path


def test_the_form_is_that_of_sha256sum(folder):
    write_sums(folder, ["a", "名字 b"])
    expected = subprocess.run(["sha256sum", "a", "名字 b"], cwd=folder, capture_output=True)
    assert (folder / SUMS_FILE).read_bytes() == expected.stdout
    assert damage(folder, ["a", "名字 b"]) is None


def test_damage_is_named(folder):
    write_sums(folder, ["a"])
    assert damage(folder, ["名字 b"]) == f"{folder / '名字 b'}: damaged (it is not what SHA256SUMS says)"
    (folder / "a").write_bytes(b"x")
    assert damage(folder, ["a"]) == f"{folder / 'a'}: damaged (it is not what SHA256SUMS says)"
    (folder / "a").unlink()
    assert damage(folder, ["a"]) == f"{folder / 'a'}: missing"
    for content in (b"nothing of the kind", b"\xff\xfe"):
        (folder / SUMS_FILE).write_bytes(content)
        assert damage(folder, ["a"]) == f"{folder / SUMS_FILE}: damaged"
    (folder / SUMS_FILE).unlink()
    assert damage(folder, ["a"]) == f"{folder}: no SHA256SUMS in it"


# --- writing ---


def stop(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("failing", [None, "body", "fsync", "first rename", "second rename"])
def test_what_is_written_is_there_whole_or_what_was_there_is(tmp_path, monkeypatch, kind, there, failing):
    path, rename, renames = tmp_path / "x", os.replace, []

    def write(place, text):
        if kind == "folder":
            (place / "sub").mkdir(parents=True)
            place = place / "sub" / "file"
        place.write_text(text, encoding="utf-8")

    def replace(source, target):
        renames.append(target)
        if len(renames) == (1 if failing == "first rename" else 2):
            stop()
        rename(source, target)

    if there:
        write(path, "old")
    monkeypatch.setattr(files.os, "fsync", stop if failing == "fsync" else os.fsync)
    monkeypatch.setattr(files.os, "replace", replace if "rename" in str(failing) else rename)
    fails = failing and not (failing == "second rename" and not (there and kind == "folder"))
    with pytest.raises(OSError) if fails else nullcontext():
        with files.writing(path, replace_folder=kind == "folder") as beside:
            write(beside, "new")
            if failing == "body":
                stop()
    monkeypatch.undo()
    content = path / "sub" / "file" if kind == "folder" else path
    if fails and not there:
        assert not any(tmp_path.iterdir())
    else:
        assert content.read_text(encoding="utf-8") == ("old" if fails else "new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_everything_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls, rename = [], os.replace
    monkeypatch.setattr(files, "sync", lambda path: calls.append(path.name))
    monkeypatch.setattr(files.os, "replace", lambda *names: (calls.append("rename"), rename(*names)))
    with files.writing(tmp_path / "x") as beside:
        beside.mkdir()
        (beside / "a").write_bytes(b"a")
    assert calls == ["a", beside.name, "rename", tmp_path.name]


def test_what_killed_processes_left_goes_a_day_later(tmp_path):
    for name, hours in (("x.0123abcd.tmp", 25), ("x.4567abcd.tmp", 1), ("xy.tmp", 25), ("x.notes.tmp", 25)):
        (tmp_path / name).write_bytes(b"half")
        moment = time.time() - 3600 * hours
        os.utime(tmp_path / name, (moment, moment))
    files.write_text(tmp_path / "x", "whole")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x", "x.4567abcd.tmp", "x.notes.tmp", "xy.tmp"]


@pytest.mark.parametrize("there", ["folder", "link to a folder", "link to nothing's folder", "pipe", "file"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_takes_the_place_of_another_kind(tmp_path, kind, there):
    path, other = tmp_path / "x", tmp_path / "other"
    if there == "folder":
        (path / "sub").mkdir(parents=True)
    elif there == "link to a folder":
        other.mkdir()
        path.symlink_to("other")
    elif there == "link to nothing's folder":
        path.symlink_to("none/y")
    elif there == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"old")
    before = tree(tmp_path)
    fails = there != "file" or kind == "folder"
    with pytest.raises(OSError) if fails else nullcontext():
        with files.writing(path) as beside:
            beside.write_bytes(b"new") if kind == "file" else beside.mkdir()
    assert (tree(tmp_path) == before) == fails


def tree(folder):
    return sorted((str(path), path.lstat().st_mode, path.is_file() and path.read_bytes()) for path in folder.rglob("*"))


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("fresh")
    for name in ("link", "dangling"):
        files.write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "fresh", "link", "target"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_does_not_delete_what_has_its_name(tmp_path, kind):
    path = tmp_path / "x.lock"
    path.write_bytes(b"mine") if kind == "file" else (path / "sub").mkdir(parents=True)
    before = tree(tmp_path)
    with pytest.raises(OSError, match="x.lock"):
        with files.lock_file(path):
            pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "output, given, refused",
    [
        ("in.txt", "in.txt", True),
        ("./sub/../in.txt", "in.txt", True),
        ("link.txt", "in.txt", True),
        ("hard.txt", "in.txt", True),
        ("folder", "folder", True),
        ("folder/deep/new.txt", "folder", True),
        ("to_folder/new.txt", "folder", True),
        ("folder/new.txt", "to_folder", True),
        ("new.txt", "*.txt", True),
        ("folder/new.txt", "fold*", True),
        ("folder/new.txt", "*.txt", False),
        ("folder2/new.txt", "folder", False),
        ("new", "in.txt", False),
        ("folder/new.txt", "folder/a.txt", False),
        ("in.txt", "none.txt", False),
        ("in.txt", "", False),
    ],
)
def test_an_output_is_no_input(tmp_path, monkeypatch, output, given, refused):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder2", "sub"):
        (tmp_path / folder).mkdir()
    for name in ("in.txt", "folder/a.txt"):
        (tmp_path / name).write_bytes(b"text")
    os.symlink("in.txt", "link.txt")
    os.link("in.txt", "hard.txt")
    os.symlink("folder", "to_folder")
    with pytest.raises(files.OptionError, match="--output: .*an input") if refused else nullcontext():
        files.check_apart("--output", [output], [given])


# --- one process at a time ---


def test_a_lock_on_a_name_is_waited_for_and_leaves_nothing(tmp_path, monkeypatch):
    inside, most = [], []

    def work(_):
        with files.lock_file(tmp_path / "new" / "x.lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert max(most) == 1 and not any((tmp_path / "new").iterdir())
    monkeypatch.setattr(files, "LOCK_TRIES", 0)
    with files.lock_file(tmp_path / "x.lock", "busy"):
        with pytest.raises(files.CheckpointError, match="busy"):
            with files.lock_file(tmp_path / "x.lock", "busy"):
                pass
