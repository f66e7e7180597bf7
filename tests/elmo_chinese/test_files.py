"""elmo_chinese/files.py: what sha256sum reads and writes, and damage that is named."""

import subprocess

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
