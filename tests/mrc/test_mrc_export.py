"""mrc.export: the static program gives the probabilities of its network, in a process without the network's code."""

import subprocess
import sys

from elmo_chinese.text.reading import InputError

import numpy as np
import paddle
import pytest
from test_mrc_model import groups, model

from mrc import export
from mrc import model as reading

SERVE = """
import sys
import numpy as np, paddle
program = paddle.jit.load(sys.argv[1])
program.eval()
for number in range(2):
    data = np.load(f"{sys.argv[2]}{number}.npz")
    found = program(*(paddle.to_tensor(data[name]) for name in sys.argv[3:]))
    for log, name in zip(found, ("start", "end")):
        assert log.shape == list(data[name].shape), (log.shape, data[name].shape)
        there = data[name] > -1e8
        assert there.any() and (log.numpy()[~there] < -1e8).all()
        assert np.abs(log.numpy() - data[name])[there].max() < 1e-5, np.abs(log.numpy() - data[name])[there].max()
"""


@pytest.mark.parametrize("elmo", [False, True])
def test_the_exported_program_gives_the_same_probabilities_in_a_fresh_process(elmo, tmp_path, monkeypatch, capsys):
    made = model(elmo)
    for parameter in made.reader.parameters():  # large enough to matter
        parameter.set_value(paddle.randn(parameter.shape) * 0.5)
    monkeypatch.setattr(reading, "load", lambda path: made)
    export.main(["--model", "reader", "--output", str(tmp_path / "out")])
    assert "exported to" in capsys.readouterr().out
    encoded = reading.encode(made, groups())
    for number, some in enumerate(([0, 1], [1])):
        arrays = export.inputs(made, encoded, some)
        start, end = (log.numpy() for log in made.reader(reading.make_batch(made, encoded, some)))
        np.savez(tmp_path / f"data{number}.npz", start=start, end=end, **arrays)
    command = [sys.executable, "-c", SERVE, "out/reader", "data", *arrays]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "vocabulary.txt").read_text("utf-8") == made.vocabulary.text
    with pytest.raises(InputError, match="is there already; choose another --output"):
        export.save(made, tmp_path / "out")
