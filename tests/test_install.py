"""The package installed into somebody else's project, whose own modules have all the names that are common."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import GOLDEN, ROOT

CPP = ROOT / "elmo_chinese" / "network" / "cpp"
ELMO = GOLDEN / "lac_small" / "elmo_checkpoint"
# What a project of this field has lying about; each ends whatever imports it.
HOSTILE = (
    *("archive", "checkpoint", "corpus", "embed", "files", "gradients", "kernels", "lstmp", "metrics", "options"),
    *("preprocess", "pretrained", "reader", "runtime", "session", "softmax", "sums", "text", "train", "utils"),
    *("vocabulary", "model", "network", "data", "crf"),
)


@pytest.fixture(scope="module")
def project(installed, tmp_path_factory):
    """A folder of somebody's own project; returns what runs a command there."""
    folder = tmp_path_factory.mktemp("project")
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"raise SystemExit('the project\\'s own {name}.py ran')\n", encoding="utf-8")

    def run(*command, **more):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(installed)])}
        environment["PYTHONWARNINGS"] = "ignore:No ccache found"  # of Paddle 3, imported first
        done = subprocess.run(
            list(map(str, command)), cwd=folder, env=environment, capture_output=True, encoding="utf-8", **more
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run.folder = folder
    return run


def test_the_names_it_takes_are_few_and_its_own(wheel, installed):
    names = {path.name for path in installed.iterdir()} - {"bin", "__pycache__"}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        *("bilm.py", "bilm-stubs", "elmo_embed.py", "elmo_publish.py", "elmo_chinese", "lac", "mrc"),
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in inside if name.endswith(".dist-info/METADATA"))
    assert {name for name in inside if "/cpp/" in name} == {
        f"elmo_chinese/network/cpp/{path.name}" for path in CPP.iterdir()
    }
    # What type checkers look for (PEP 561).
    assert {f"{name}/py.typed" for name in ("elmo_chinese", "lac", "mrc")} <= inside
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("bilm-stubs/__init__.pyi") == (ROOT / "bilm.py").read_bytes()
    assert {"lac/conf/q2b.dic", "lac/data/tag.dic"} <= inside
    for line in ("Name: elmo-chinese", "Requires-Python: >=3.8", "Requires-Dist: numpy\n", "Requires-Dist: jieba\n"):
        assert line in metadata
    extras = {
        "cpu": "paddlepaddle==2.6.2",
        "gpu": "paddlepaddle-gpu==2.6.2",
        "visualdl": "visualdl==2.5.3",
        "h5": "h5py==",
        "wikipedia": "mwparserfromhell==",
        "cluster": "distributed==2023.5.0",
    }
    lines = [line.replace(" ", "").replace('"', "'") for line in metadata.splitlines()]
    for extra, pin in extras.items():
        assert any(pin in line and line.endswith(f"extra=='{extra}'") for line in lines), extra


MINE = """
import json, sys
import numpy as np
import paddle
from bilm import elmo_encoder, load_encoder

golden = np.load(sys.argv[2])
encoder, _ = load_encoder(sys.argv[1])
encoder.eval()
lengths, flat = golden["lens"], list(golden["word_ids"])
ids = np.zeros((len(lengths), lengths.max()), np.int64)
for row, length in enumerate(lengths):
    ids[row, :length], flat = flat[:length], flat[length:]
vectors = elmo_encoder(paddle.to_tensor(ids), lengths=paddle.to_tensor(lengths), encoder=encoder).numpy()
mix = encoder.mixes[0]
print(json.dumps({"w": mix.ELMo_w.tolist(), "gamma": mix.ELMo_gamma.item(),
                  "vectors": [vectors[row, :length].tolist() for row, length in enumerate(lengths)]}))
"""


def test_vectors_in_a_program_of_ones_own_equal_the_golden_ones(project):
    (project.folder / "mine.py").write_text(MINE, encoding="utf-8")
    done = project(sys.executable, "mine.py", ELMO, GOLDEN / "lac_small" / "elmo.npz")
    found = json.loads(done.stdout.splitlines()[-1])  # before it, what was loaded is said
    golden = np.load(GOLDEN / "lac_small" / "elmo_lm_states.npz")
    names = ("x_emb", "ori1", "ori2")
    layers = [np.concatenate([golden[f"fw_{n}"], golden[f"bw_{n}_sentence_order"]], axis=1) for n in names]
    weights = np.exp(found["w"]) / np.exp(found["w"]).sum()
    expected = found["gamma"] * np.tensordot(weights, layers, axes=1)
    assert np.abs(np.concatenate(found["vectors"]) - expected).max() < 1e-5
    assert done.stderr == ""


def test_importing_says_nothing(project):
    done = project(sys.executable, "-c", "import bilm, lac, elmo_embed")
    assert done.stdout == done.stderr == ""


def test_without_paddle_it_says_what_to_install(project):
    code = "import sys; sys.modules['paddle'] = None; import bilm"
    with pytest.raises(AssertionError, match="pip install paddlepaddle==2.6.2"):
        project(sys.executable, "-c", code)


def test_the_commands_run_from_any_folder(project, installed):
    text = "词3 词4\n\n词5\n"
    flags = ("--checkpoint", ELMO, "--vocab_path", GOLDEN / "lm_small" / "vocab.txt", "--input", "-")
    done = project(installed / "bin" / "elmo-embed", *flags, "--output", "vectors.npz", input=text)
    assert "3 lines" in done.stdout
    assert [len(array) for array in np.load(project.folder / "vectors.npz").values()] == [2, 0, 1]
    assert "usage: lac" in project(installed / "bin" / "lac-predict", "--help").stdout


def test_a_tagger_is_trained_with_the_tag_set_and_the_table_of_the_package(project, installed):
    (project.folder / "mine.txt").write_text("上海/ns 的/u 房价/n 平稳/a\n" * 4, encoding="utf-8")
    sizes = ("--word_emb_dim", "4", "--grnn_hidden_dim", "3", "--max_epoch", "1", "--use_gpu", "false")
    done = project(sys.executable, "-m", "lac.train", "--train_data", "mine.txt", *sizes)
    assert f"tags        63, of {installed / 'lac' / 'data' / 'tag.dic'}\n" in done.stdout


def test_a_read_only_package_in_a_home_that_cannot_be_written(project, installed, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = "import bilm; from elmo_chinese.network import kernels; print(kernels.describe())"
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": "/proc/nobody", "TMPDIR": str(temporary)}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    if shutil.which("g++"):
        assert done.stdout == "inner loops in C++\n" and list(temporary.glob("elmo_chinese-*/kernels-*.so"))


def test_the_released_tagger_in_a_project_of_ones_own(project, installed):
    from lac import release

    if not release.models_folder().is_dir():
        pytest.skip("no released models in the cache")
    code = "from lac import LAC; print(*LAC(mode='lac').run('百度是一家高科技公司')[0])"
    assert project(sys.executable, "-c", code).stdout == "百度 是 一家 高科技 公司\n"
    done = project(installed / "bin" / "lac-predict", input="百度是一家高科技公司\n")
    assert done.stdout == "百度/ORG 是/v 一家/m 高科技/n 公司/n\n"
