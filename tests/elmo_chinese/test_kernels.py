"""elmo_chinese/kernels.py, kernels.cc: the C++ loops against the Paddle functions, and life without a compiler."""

from elmo_chinese import gru, kernels, lstmp, softmax

import numpy as np
import paddle
import pytest
from conftest import largest_difference, run_python

from bilm import ElmoEncoder
from lac import model
from lac.network import Tagger


@pytest.fixture
def library():
    found, why_not = kernels.compiled()
    if found is None:
        pytest.skip(f"no C++ here: {why_not}")
    return found


def random_tensors(*shapes, scale=1.0):
    rng = np.random.default_rng(0)
    return [paddle.to_tensor(rng.normal(0, scale, shape).astype("float32")) for shape in shapes]


def assert_same(mine, right, tolerance=1e-5):
    for one, other in zip(mine, right):
        if isinstance(other, list):
            assert_same(one, other, tolerance)
        else:
            largest = max(1.0, float(np.abs(other.numpy()).max()))
            assert largest_difference(one.numpy(), other.numpy()) < tolerance * largest


def lstm_problem(directions, steps, batch, embed, hidden, scale):
    shapes = [
        (steps, batch, embed), (embed, 4 * hidden), (embed, 4 * hidden), (hidden, embed), (1, 4 * hidden),
        (batch, embed), (batch, hidden), (steps, batch, embed),
    ]  # fmt: skip
    flat = random_tensors(*(shape for shape in shapes for _ in range(directions)), scale=scale)
    inputs, *weights, hiddens, cells, d_outputs = (flat[n : n + directions] for n in range(0, len(flat), directions))
    return inputs, lstmp.Weights(*weights), hiddens, cells, d_outputs


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "directions, steps, batch, embed, hidden",
    [(1, 1, 1, 1, 1), (2, 3, 3, 2, 7), (1, 4, 16, 8, 12), (2, 5, 24, 8, 33), (2, 2, 40, 16, 64)],
)
def test_lstm_steps_and_gradients_with_clips_biting(
    library, monkeypatch, threads, directions, steps, batch, embed, hidden
):
    inputs, weights, hiddens, cells, d_outputs = lstm_problem(directions, steps, batch, embed, hidden, 0.7)
    clips, before = (0.5, 0.4), library.set_threads(threads)
    try:
        ours = lstmp._steps_in_cpp(inputs, weights, hiddens, cells, clips, True)
        theirs = lstmp._steps_in_paddle(inputs, weights, hiddens, cells, clips, True)
        assert_same(ours, theirs)
        for state, right in zip(lstmp._steps_in_cpp(inputs, weights, hiddens, cells, clips, False)[1:], theirs[1:]):
            assert_same([t[-1] for t in state], [t[-1] for t in right])
        if batch > 1:
            assert 0 < (theirs.cells[0][1:].abs() >= 0.5).astype("float32").mean() < 1
            assert 0 < (theirs.hiddens[0][1:].abs() >= 0.4).astype("float32").mean() < 1
        wanted = [True] * directions
        right = lstmp._gradients_in_paddle(d_outputs, theirs, weights, clips, wanted)
        mine = lstmp._gradients_in_cpp(d_outputs, theirs, weights, clips, wanted)  # writes over theirs.gates
        assert_same(mine, right)
        assert lstmp._gradients_in_cpp(d_outputs, ours, weights, clips, [False] * directions).inputs[0] is None
    finally:
        library.set_threads(before)


def test_extreme_gates_saturate_and_nan_stays_visible(library):
    inputs, weights, hiddens, cells, _ = lstm_problem(1, 1, 2, 1, 1, 1.0)
    weights.projection_w[0] = paddle.ones([1, 1])
    inputs = [paddle.to_tensor([[[1e30], [-1e30]]])]
    weights.gate_w[0] = paddle.ones([1, 4])
    cells = [paddle.to_tensor([[0.5], [0.5]])]
    kept = lstmp._steps_in_cpp(inputs, weights, hiddens, cells, (3.0, 3.0), True)
    assert np.allclose(kept.gates[0].numpy(), [[[1, 1, 1, 1], [-1, 0, 0, 0]]])
    assert np.allclose(kept.cells[0][1].numpy(), [[1.5], [0]]) and np.isfinite(kept.hiddens[0].numpy()).all()
    for place in range(4):
        bias = np.zeros((1, 4), dtype="float32")
        bias[0, place] = np.nan
        weights.bias[0] = paddle.to_tensor(bias)
        kept = lstmp._steps_in_cpp([paddle.zeros([1, 2, 1])], weights, hiddens, cells, (3.0, 3.0), True)
        assert np.isnan(kept.hiddens[0][1].numpy()).all()


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("steps, batch, size", [(1, 1, 1), (3, 5, 7), (6, 32, 16)])
def test_gru_steps_and_gradients(library, threads, steps, batch, size):
    shapes = (steps, batch, 3 * size), (size, 2 * size), (size, size), (steps, batch, size)
    flat = random_tensors(*(shape for shape in shapes for _ in range(2)), scale=0.7)
    gates, gate_w, candidate_w, d_hiddens = (flat[n : n + 2] for n in range(0, 8, 2))
    before = library.set_threads(threads)
    try:
        theirs = gru._steps_in_paddle(gates, gate_w, candidate_w)
        theirs = [[value.contiguous() for value in values] for values in theirs]
        ours = gru._steps_in_cpp([gate.clone() for gate in gates], gate_w, candidate_w)
        assert_same(ours, theirs)
        activated, _, hiddens = theirs
        right = list(gru._gradients_in_paddle(d_hiddens, activated, hiddens, gate_w, candidate_w))
        assert_same(gru._gradients_in_cpp(d_hiddens, activated, hiddens, gate_w, candidate_w), right)
    finally:
        library.set_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [[1], [7, 1, 30, 7, 2], list(range(1, 60)) * 3])
@pytest.mark.parametrize("elmo", [False, True])
def test_tags_of_sentences_without_padding(library, lengths, elmo, threads):
    paddle.seed(len(lengths))
    encoder = ElmoEncoder(50, 4, 5) if elmo else None
    tagger = Tagger(40, 9, 6, 8, 2, encoder=encoder)
    for parameter in tagger.parameters():  # large enough for paths that are not all alike
        parameter.set_value(paddle.randn(parameter.shape))
    tagger.eval()
    rng, lengths = np.random.default_rng(0), np.array(lengths)
    words, ids = ([rng.integers(0, size, length) for length in lengths] for size in (40, 50))
    encoded = model.Encoded(words, ids if elmo else None, lengths)
    made = model.Model(model.decoder(tagger), None, None, tagger)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        right = model.predict_ids(made, encoded)
    before = library.set_threads(threads)
    try:
        found = model.predict_ids(made, encoded)
    finally:
        library.set_threads(before)
    assert len(np.unique(np.concatenate(right))) > 1 or len(lengths) == 1
    assert all(np.array_equal(one, other) for one, other in zip(found, right))


def test_of_equally_good_paths_the_one_with_lower_ids_is_taken(library):
    tagger = Tagger(3, 4, 2, 2, 1)
    for parameter in tagger.parameters():
        parameter.set_value(paddle.zeros_like(parameter))
    assert tagger.best_tags(np.array([0, 1, 2]), np.array([2, 1])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("tokens, words, scale", [(1, 1, 1.0), (7, 33, 1.0), (40, 500, 8.0)])
def test_softmax_with_a_label_column_and_without(library, monkeypatch, tokens, words, scale):
    logits, offsets, own, d_losses = random_tensors((tokens, words), (words,), (tokens,), (tokens,), scale=scale)
    rng = np.random.default_rng(1)
    labels, hits = (paddle.to_tensor(rng.integers(low, words, tokens)) for low in (0, -1))
    for given in (dict(labels=labels), dict(own=own, hits=hits)):
        results = []
        for switch in (kernels.library, lambda: None):
            monkeypatch.setattr(softmax.kernels, "library", switch)
            losses, probabilities, own_probability = softmax._normalize(logits.clone(), offsets, **given)
            shares = [probabilities.clone()] + ([] if own_probability is None else [own_probability.clone()])
            column = {"labels": labels} if own_probability is None else {"own": own_probability}
            gradients = softmax._gradients(probabilities, d_losses, **column)
            results.append([losses, *shares, *(gradient for gradient in gradients if gradient is not None)])
        monkeypatch.undo()
        assert_same(*results)
        assert len(results[0]) == len(results[1]) == (4 if "labels" in given else 6)


def test_nan_in_a_logit_makes_a_nan_loss(library):
    logits = paddle.to_tensor([[0.0, float("nan"), 1.0], [0.0, 1.0, 2.0]])
    losses, _, _ = softmax._normalize(logits, paddle.zeros([3]), labels=paddle.to_tensor([0, 1]))
    assert np.isnan(losses.numpy()).tolist() == [True, False]


def test_tensors_that_would_be_misread_are_refused(library):
    for wrong in (paddle.ones([2, 3], "float64"), paddle.ones([3, 2]).t()):
        with pytest.raises(TypeError, match="expected contiguous numbers"):
            kernels.call("softmax_losses", [2, 3], [], [wrong])


PROGRAM = "import bilm, paddle; from elmo_chinese import kernels; print(kernels.describe()); \
lm = bilm.BiLM(9, 4, 6); w = paddle.ones([2, 3], 'int64'); lm(w, w, w, w)[0].mean().backward(); print('trained')"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"BILM_CPP": "0"}, "inner loops in Paddle operators (BILM_CPP=0)"),
        ({"CXX": "no-such-compiler"}, "inner loops in Paddle operators (no g++ found); slower, same results"),
        ({"CXX": "false"}, "inner loops in Paddle operators (kernels.cc: "),
    ],
)
def test_without_a_compiler_it_works_and_says_so(monkeypatch, tmp_path, change, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    finished = run_python("-c", PROGRAM)
    assert finished.returncode == 0 and said in finished.stdout and "trained" in finished.stdout, finished.stderr


def test_compiled_once_and_kept(library):
    path = kernels._cache_path("g++")
    before = path.stat().st_mtime_ns
    finished = run_python("-c", PROGRAM)
    assert "inner loops in C++" in finished.stdout, finished.stderr
    assert before == path.stat().st_mtime_ns


def test_golden_arrays_without_cpp(monkeypatch):
    monkeypatch.setenv("BILM_CPP", "0")
    tests = ["tests/test_bilm.py", "tests/test_encoder.py", "tests/test_train.py", "-k", "golden or numpy or numeric"]
    finished = run_python("-m", "pytest", *tests)
    assert finished.returncode == 0 and " passed" in finished.stdout, finished.stdout
