"""elmo_chinese/text/corpus/shards.py: files that appear when they are complete, and the memory of sentences."""

import random

from elmo_chinese.text.corpus.shards import Seen, ShardWriter
from elmo_chinese.text.reading import InputError

import numpy as np
import pytest

RUN = "0123abcd"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_and_taking_back_what_came_after_a_place(tmp_path):
    lines = [f"第 {number} 句" for number in range(40)]
    writer = ShardWriter(tmp_path / "whole", 100, RUN)
    writer.add(lines)
    writer.close()
    assert all(name.endswith(f".txt.{RUN}.tmp") for name in contents(tmp_path / "whole"))
    writer.publish()
    whole = contents(tmp_path / "whole")
    assert b"".join(whole[name] for name in sorted(whole)).decode().split("\n")[:-1] == lines
    assert all(100 <= len(whole[name]) < 120 for name in sorted(whole)[:-1]) and len(whole) > 3
    for stop in range(40):
        folder = tmp_path / str(stop)
        writer = ShardWriter(folder, 100, RUN)
        writer.add(lines[:stop])
        writer.sync()
        if stop % 2:
            writer.publish()
        count, written = writer.count, writer.written
        writer.add(lines[stop : stop + 15])  # killed after some more, shards among them
        writer.sync()
        again = ShardWriter(folder, 100, RUN, count, written)
        again.add(lines[stop:])
        again.close()
        again.publish()
        assert contents(folder) == whole


def test_after_a_hundred_thousand_shards_the_finished_ones_stay(tmp_path):
    for number in (9, 50_000, 99_999, 100_000, 100_001):
        end = f".{RUN}.tmp" if number >= 99_999 else ""
        (tmp_path / f"part_{number:05d}.txt{end}").write_text(f"{number}\n", encoding="utf-8")
    writer = ShardWriter(tmp_path, 100, RUN, 100_000, 3)
    writer.close()
    writer.publish()
    names = ["part_00009.txt", "part_100000.txt", "part_50000.txt", "part_99999.txt"]
    assert sorted(contents(tmp_path)) == names and contents(tmp_path)["part_100000.txt"] == b"100"


@pytest.mark.parametrize("lost", ["part_00000.txt", f"part_00001.txt.{RUN}.tmp"])
def test_an_interrupted_run_does_not_go_on_without_what_it_wrote(tmp_path, lost):
    """`rm -r OUTPUT/*` leaves the hidden folder that says how far the run had got."""
    writer = ShardWriter(tmp_path / "train", 100, RUN)
    writer.add(f"第 {number} 句" for number in range(13))
    writer.sync()
    writer.publish()
    (tmp_path / "train" / lost).unlink()
    with pytest.raises(InputError, match=f"{lost} of the unfinished run is gone"):
        ShardWriter(tmp_path / "train", 100, RUN, writer.count, writer.written)


@pytest.mark.parametrize("name", ["part_00001.txt", "part_99999.txt"])
def test_a_shard_of_somebody_else_stays(tmp_path, name):
    writer = ShardWriter(tmp_path, 100, RUN)
    writer.add(f"第 {number} 句" for number in range(13))
    writer.sync()
    writer.publish()
    (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{name} is none of the unfinished run"):
        ShardWriter(tmp_path, 100, RUN, writer.count, writer.written)
    assert contents(tmp_path) == before
    if name == "part_00001.txt":
        with pytest.raises(InputError, match=f"{name} is none of this run"):
            writer.close()
            writer.publish()
        assert (tmp_path / name).read_bytes() == b"mine"


def test_an_empty_shard_vanishes(tmp_path):
    ShardWriter(tmp_path / "a", 100, RUN).close()
    assert contents(tmp_path / "a") == {}


def test_seen_is_a_set_while_there_is_room():
    draw, seen, known = np.random.default_rng(0), Seen(17 * 4000), set()
    for _ in range(20):
        fingerprints = draw.integers(1, 2000, 150).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        fresh = seen.new(fingerprints)
        expected = []
        for one in fingerprints.tolist():
            expected.append(one not in known)
            known.add(one)
        assert fresh.tolist() == expected
        seen.add(fingerprints[fresh])


def test_half_full_fewer_than_one_in_a_thousand_is_forgotten():
    fingerprints = np.random.default_rng(1).integers(1, 2**64, 60_000, dtype=np.uint64)
    seen = Seen(17 * 60_000)
    for block in np.split(fingerprints, 60):
        seen.add(block)
    assert seen.new(fingerprints).sum() < 60


def test_a_full_table_forgets_the_oldest_and_depends_on_order_alone():
    fingerprints = list(range(1, 101))
    random.Random(0).shuffle(fingerprints)
    fingerprints = np.array(fingerprints, dtype=np.uint64)
    one, two = Seen(1), Seen(1)
    one.add(fingerprints)
    for block in np.split(fingerprints, 20):
        two.add(block)
    assert one.new(fingerprints).tolist() == two.new(fingerprints).tolist() == [True] * 84 + [False] * 16


@pytest.mark.parametrize("size", [99999 * 2**30, 2**70])
def test_more_memory_than_there_is_is_refused_at_once(size):
    with pytest.raises(InputError, match="--duplicates_memory: .* GB are more than there are"):
        Seen(size)
