"""elmo_chinese/storage/vectors.py: what is written is what NumPy reads, whole or not at all, in bounded memory."""

import os
import tracemalloc
import zipfile

from elmo_chinese import files
from elmo_chinese.command import OptionError
from elmo_chinese.storage import vectors
from elmo_chinese.storage.vectors import Counts, writing
from elmo_chinese.text.reading import InputError

import numpy as np
import pytest

LINES = [
    np.zeros([0, 4], "f4"),
    np.arange(8, dtype="f4").reshape(4, 2).T,
    np.full([1, 4], 1.5, "f4"),
]


def write(path, arrays, pooled=False):
    rows = len(arrays) if pooled else sum(array.shape[-2] for array in arrays)
    with writing(path) as write:
        write(iter(arrays), Counts(len(arrays), rows, pooled))


def test_npz_is_read_by_numpy_and_zipfile(tmp_path):
    write(tmp_path / "a.npz", LINES)
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    with np.load(tmp_path / "a.npz") as read:
        assert read.files == ["0", "1", "2"]
        for key, array in zip(read.files, LINES):
            assert np.array_equal(read[key], array) and read[key].dtype == array.dtype


@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_npy_holds_all_words_and_where_lines_start(tmp_path, layers, kind):
    arrays = [array.astype(kind) for array in LINES]
    arrays = [np.stack([array * n for n in range(layers)]) for array in arrays] if layers else arrays
    write(tmp_path / "a.npy", arrays)
    found, offsets = np.load(tmp_path / "a.npy", mmap_mode="r"), np.load(tmp_path / "a.offsets.npy")
    assert found.dtype == kind and offsets.dtype == np.int64 and offsets.tolist() == [0, 0, 2, 3]
    expected = np.concatenate([np.moveaxis(array, -2, 0) for array in arrays])
    assert found.shape == ((3, 3, 4) if layers else (3, 4)) and np.array_equal(found, expected)


def test_npy_of_pooled_vectors_has_a_row_for_each_line(tmp_path):
    arrays = [np.full([2, 4], n, "f4") for n in range(3)]
    write(tmp_path / "a.npy", arrays, pooled=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.stack(arrays))
    assert np.load(tmp_path / "a.offsets.npy").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_what_fails_leaves_what_was_there(tmp_path, name):
    write(tmp_path / name, LINES)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing():
        yield LINES[1]
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        with writing(tmp_path / name) as writer:
            writer(failing(), Counts(3, 3, False))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_vectors_never_stand_beside_the_offsets_of_another_text(tmp_path, monkeypatch):
    """Killed between the two renames."""
    write(tmp_path / "a.npy", LINES)
    move, moved = files.move, []

    def killed(source, target, *more):
        if moved:
            raise KeyboardInterrupt
        moved.append(target.name)
        move(source, target)

    monkeypatch.setattr(files, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.npy", LINES[:2])
    assert moved == ["a.npy"] and [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("there", [None, LINES[:2]])
def test_offsets_that_are_of_no_such_output_stay(tmp_path, there):
    if there:
        write(tmp_path / "a.npy", there)
    np.save(tmp_path / "a.offsets.npy", np.arange(9))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OptionError, match="a.offsets.npy is there and not of .*a.npy"):
        write(tmp_path / "a.npy", LINES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said_once(tmp_path, monkeypatch, recwarn, name):
    form = vectors.FILES[name[1:]]

    def on_a_full_disk(paths, arrays, counts):
        form.write(paths if not counts.lines else ["/dev/full"] * len(paths), arrays, counts)

    monkeypatch.setitem(vectors.FILES, name[1:], form._replace(write=on_a_full_disk))
    with pytest.raises(InputError, match=f"cannot write .*{name}: No space left on device; choose another --output"):
        write(tmp_path / name, [np.ones([2000, 10], "f4")] * 2)
    assert not list(tmp_path.iterdir()) and not recwarn.list


def test_an_npz_keeps_some_hundred_bytes_for_each_line(tmp_path):
    array, sizes = np.zeros([2, 4], "f4"), []

    def arrays():
        for number in range(3000):
            if number == 1000:
                tracemalloc.start()
            yield array
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    with writing(tmp_path / "a.npz") as write_all:
        write_all(arrays(), Counts(3000, 6000, False))
    kept = sizes[0]
    assert 100 < kept / 2000 < 600


def test_a_folder_in_the_place_of_the_offsets_is_left_alone(tmp_path):
    (tmp_path / "a.offsets.npy").mkdir()
    with pytest.raises(vectors.OptionError, match="a.offsets.npy: is a folder"):
        write(tmp_path / "a.npy", LINES)
    assert (tmp_path / "a.offsets.npy").is_dir()
