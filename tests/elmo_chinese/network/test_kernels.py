"""elmo_chinese/network/kernels.py, cpp/: the C++ loops against the Paddle functions, and life without a compiler."""

import re

from elmo_chinese.network import gru, kernels, lstmp, softmax

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
        if isinstance(other, (list, tuple)):
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
    return paddle.stack(inputs), lstmp.Weights(*weights), *map(paddle.stack, (hiddens, cells, d_outputs))


def kept_as_in_cpp(kept):
    """What the Paddle path keeps, one tensor a direction in each list and the gates activated."""
    kept = lstmp.Kept(*([part.contiguous() for part in paddle.stack(steps, axis=1)] for steps in kept[:3]))
    halves = [paddle.split(gates, [gates.shape[-1] // 4, -1], axis=-1) for gates in kept.gates]
    gates = [paddle.concat([candidate, (1 + others) / 2], axis=-1) for candidate, others in halves]
    return kept._replace(gates=gates)


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
        *ours, kept = lstmp._steps_in_cpp(inputs, weights, hiddens, cells, clips, True)
        *theirs, kept_in_paddle = lstmp._steps_in_paddle(inputs, weights, hiddens, cells, clips, True)
        again = kept_as_in_cpp(kept_in_paddle)
        assert_same([*ours, *kept[:3]], [*theirs, *again[:3]])
        for steps in (lstmp._steps_in_cpp, lstmp._steps_in_paddle):
            assert_same(steps(inputs, weights, hiddens, cells, clips, False)[:3], theirs)
        if batch > 1:
            assert 0 < (theirs[2].abs() >= 0.5).astype("float32").mean() < 1
            assert 0 < (theirs[0].abs() >= 0.4).astype("float32").mean() < 1
        right = lstmp._gradients_in_paddle(inputs, d_outputs, kept_in_paddle, weights, clips, True)
        mine = lstmp._gradients_in_cpp(inputs, d_outputs, again, weights, clips, True)  # uses up what was kept
        assert_same(mine, right)
        for gradients, left in ((lstmp._gradients_in_cpp, kept), (lstmp._gradients_in_paddle, kept_in_paddle)):
            found = gradients(inputs, d_outputs, left, weights, clips, False)
            assert found[0] is None
            assert_same(found[1:], right[1:])
    finally:
        library.set_threads(before)


def test_threads_that_train_at_once_have_their_own_gates(monkeypatch):
    shape, meanwhile = [1, 2, 4], []

    class Used:
        """Gates at the look at which another thread has its turn."""

        @property
        def shape(self):
            if not meanwhile:
                meanwhile.append(None)
                meanwhile.append(lstmp._new_gates(shape))
            return shape

    monkeypatch.setattr(lstmp, "_used_gates", [Used()])
    mine = lstmp._new_gates(shape)
    assert mine.shape == meanwhile[1].shape == shape and mine is not meanwhile[1]


def test_used_gates_of_other_shapes_are_let_go(monkeypatch):
    monkeypatch.setattr(lstmp, "_used_gates", [paddle.zeros([1, 2, 4]), paddle.zeros([3, 2, 4])])
    assert lstmp._new_gates([1, 2, 4]).shape == [1, 2, 4] and not lstmp._used_gates


def test_extreme_gates_saturate_and_nan_stays_visible(library):
    inputs, weights, hiddens, cells, _ = lstm_problem(1, 1, 2, 1, 1, 1.0)
    weights.projection_w[0] = paddle.ones([1, 1])
    inputs = paddle.to_tensor([[[[1e30], [-1e30]]]])
    weights.gate_w[0] = paddle.ones([1, 4])
    cells = paddle.to_tensor([[[0.5], [0.5]]])
    *_, kept = lstmp._steps_in_cpp(inputs, weights, hiddens, cells, (3.0, 3.0), True)
    assert np.allclose(kept.gates[0].numpy(), [[[1, 1, 1, 1], [-1, 0, 0, 0]]])
    assert np.allclose(kept.cells[0][1].numpy(), [[1.5], [0]]) and np.isfinite(kept.hiddens[0].numpy()).all()
    for place in range(4):
        bias = np.zeros((1, 4), dtype="float32")
        bias[0, place] = np.nan
        weights.bias[0] = paddle.to_tensor(bias)
        *_, kept = lstmp._steps_in_cpp(paddle.zeros([1, 1, 2, 1]), weights, hiddens, cells, (3.0, 3.0), True)
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
@pytest.mark.parametrize("lengths, size", [([1], 8), ([30], 60), ([7, 1, 30, 7, 2], 60), (list(range(1, 60)) * 3, 8)])
@pytest.mark.parametrize("elmo", [False, True])
def test_tags_of_sentences_without_padding(library, lengths, size, elmo, threads):
    paddle.seed(len(lengths))
    encoder = ElmoEncoder(50, 4, 5) if elmo else None
    tagger = Tagger(40, 9, 6, size, 2, encoder=encoder)
    for parameter in tagger.parameters():  # large enough for paths that are not all alike, too small for chaos
        parameter.set_value(paddle.randn(parameter.shape) * (8 / size))
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
            if switch() is None and own_probability is not None:  # among the columns alone
                shares[0] *= (1 - own_probability).unsqueeze(1)
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


SIZES = {  # small ones, all different where they may be
    "lstm_steps": [2, 3, 5, 4, 7, 1, 0],
    "lstm_steps_backward": [2, 3, 5, 4, 7, 0],
    "bfloat16_products": [2, 3, 4, 5, 0, 1],
    "gru_steps": [2, 3, 5, 4],
    "gru_steps_backward": [2, 3, 5, 4],
    "softmax_losses": [3, 5],
    "softmax_losses_backward": [3, 5],
    "adagrad": [6],
    "adagrad_rows": [2, 3],
    "tag_sentences": [2, 2, 3, 5, 4, 6],
    "rank_sentences": [2, 3, 5, 4, 6, 7],
    "plant_tree": [2, 16],
    "cut_texts": [2, 3, 16],
}
WORDS = 9  # sizes that are not known before


class Recorder:
    """In the library's place: what would have been called."""

    def __init__(self):
        self.called = []

    def __getattr__(self, name):
        return lambda *arguments: self.called.append((name, len(arguments)))


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(kernels, "library", lambda: made)
    return made


def right_arrays(name):
    """Return arguments as the table has them, NumPy arrays and tensors in turn where Paddle has the dtype."""
    made = []
    for _, kind, shapes in kernels.KERNELS[name].arguments(*SIZES[name]):
        shapes = [[WORDS if isinstance(size, str) else size for size in shape] for shape in shapes]
        arrays = [np.zeros(shape, kind.numpy) for shape in shapes]
        made.append([paddle.to_tensor(array) if n % 2 else array for n, array in enumerate(arrays)])
    return made


def call(name, arrays):
    kernels.call(name, SIZES[name], [0.5] * len(kernels.KERNELS[name].bounds), *arrays)


def wrong_arrays(array, shape, optional):
    """Yield what must not be taken for an array, with the words that say why."""
    given = np.asarray(array)
    other = "int64" if given.dtype == np.float32 else "float32"
    yield given.astype(other), f"found .* {other}$"
    yield paddle.to_tensor(given.astype(other)), f"found .* {other}$"
    if not isinstance(shape[-1], str):
        yield np.zeros([*given.shape[:-1], given.shape[-1] + 1], given.dtype), "expected .* found"
    if given.size > 1:
        yield np.repeat(given, 2, axis=-1)[..., ::2], "not contiguous$"
    if given.ndim == 2:
        yield paddle.to_tensor(np.ascontiguousarray(given.T)).t(), "not contiguous$"
    if not optional:
        yield None, "found None$"


def test_the_table_has_the_functions_of_the_library(library):
    declared = re.findall(r"(?m)^void (\w+)\(int64_t ", "".join(p.read_text("utf-8") for p in kernels.FOLDER.iterdir()))
    exported = {name for name in declared if hasattr(library, name)}
    assert exported == set(kernels.KERNELS) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_stand_in_the_order_of_the_table(name):
    """With the names of the table: whole numbers, then bounds, then arrays, of the kind that C++ reads them as."""
    text = "".join(path.read_text("utf-8") for path in kernels.FOLDER.glob("*.cc"))
    (declared,) = re.findall(rf"(?m)^void {name}\(([^)]*)\) {{$", text)
    kernel, types = kernels.KERNELS[name], {"float": "float32", "double": "float64"}
    found = [parameter.replace("const", "").replace("*", "").split() for parameter in declared.split(",")]
    found = [(types.get(kind, kind[:-2]), parameter) for kind, parameter in found]
    whole = kernel.arguments.__code__.co_varnames
    expected = [("int64", size) for size in whole] + [("float32", bound) for bound in kernel.bounds]
    assert found == expected + [(kind.name, argument) for argument, kind, _ in kernel.arguments(*SIZES[name])]


@pytest.mark.parametrize("name", SIZES)
def test_other_arguments_than_those_of_the_table_are_refused(recorder, name):
    call(name, right_arrays(name))
    assert recorder.called == [(name, sum(map(len, (SIZES[name], kernels.KERNELS[name].bounds, right_arrays(name)))))]
    for place, (argument, kind, shapes) in enumerate(kernels.KERNELS[name].arguments(*SIZES[name])):
        for number, shape in enumerate(shapes):
            for wrong, why in wrong_arrays(right_arrays(name)[place][number], shape, kind.optional):
                arrays = right_arrays(name)
                arrays[place][number] = wrong
                with pytest.raises(TypeError, match=f"^{name}: {argument}: .*{why}"):
                    call(name, arrays)
        arrays = right_arrays(name)
        arrays[place].append(arrays[place][0])
        with pytest.raises(TypeError, match=f"^{name}: {argument}: expected {len(shapes)} arrays"):
            call(name, arrays)
    with pytest.raises(TypeError, match=f"^{name} takes"):
        call(name, right_arrays(name)[1:])
    assert len(recorder.called) == 1


def test_sizes_that_are_words_may_differ_from_each_other_only(recorder):
    arrays = right_arrays("tag_sentences")
    arrays[3] = [np.zeros([4, 3], np.float32)]  # another vocabulary
    call("tag_sentences", arrays)
    arrays[9] = [np.zeros([WORDS + 1], np.int64)]
    with pytest.raises(TypeError, match=r"tag_sentences: path: expected int64 \['words'\], found \[10\] int64"):
        call("tag_sentences", arrays)


def test_one_size_fits_any_shape_of_as_many_numbers(recorder):
    call("adagrad", [[paddle.ones([2, 3])], [np.ones([3, 1, 2], np.float32)], [paddle.ones([6])]])
    assert len(recorder.called) == 1


def test_fixed_arrays_are_checked_again_when_one_has_moved_or_the_shapes_are_others(recorder):
    parameter, rest = paddle.ones([6]), [[np.ones([6], np.float32)], [paddle.ones([6])]]
    fixed = kernels.Fixed([parameter])
    call("adagrad", [fixed, *rest])
    pointers = fixed.pointers
    call("adagrad", [fixed, *rest])
    assert fixed.pointers is pointers and [*pointers] == [parameter.data_ptr()]
    other = paddle.ones([6])
    other._share_buffer_to(parameter)
    call("adagrad", [fixed, *rest])
    assert [*fixed.pointers] == [other.data_ptr()] != [*pointers]
    for _ in range(2):  # it does not pass the second time
        with pytest.raises(TypeError, match="adagrad: parameter: expected"):
            kernels.call("adagrad", [7], [1.0, 1.0, 1.0], fixed, *rest)


def test_arguments_that_may_be_none(recorder):
    arrays = right_arrays("softmax_losses")
    arrays[3] = arrays[4] = [None]
    call("softmax_losses", arrays)
    assert len(recorder.called) == 1


PROGRAM = "import bilm, paddle; from elmo_chinese.network import kernels; print(kernels.describe()); \
lm = bilm.BiLM(9, 4, 6); w = paddle.ones([2, 3], 'int64'); lm(w, w, w, w)[0].mean().backward(); print('trained')"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"BILM_CPP": "0"}, "inner loops in Paddle operators (BILM_CPP=0)"),
        (
            {"CXX": "no-such-compiler"},
            "inner loops in Paddle operators (no no-such-compiler found); slower, same results",
        ),
        ({"CXX": "env g++ -O2"}, "inner loops in C++"),
        ({"CXX": " "}, "inner loops in C++"),
        ({"CXX": "false"}, "inner loops in Paddle operators (elmo_chinese/network/cpp: "),
    ],
)
def test_without_a_compiler_it_works_and_says_so(monkeypatch, tmp_path, change, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BILM_CPP", raising=False)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    finished = run_python("-c", PROGRAM)
    assert finished.returncode == 0 and said in finished.stdout and "trained" in finished.stdout, finished.stderr


def test_compiled_once_and_kept(library):
    path = kernels._cache_path(["g++"])
    before = path.stat().st_mtime_ns
    finished = run_python("-c", PROGRAM)
    assert "inner loops in C++" in finished.stdout, finished.stderr
    assert before == path.stat().st_mtime_ns


def test_golden_arrays_without_cpp(monkeypatch):
    monkeypatch.setenv("BILM_CPP", "0")
    tests = ["tests/test_bilm.py", "tests/test_encoder.py", "tests/test_train.py", "-k", "golden or numpy or numeric"]
    finished = run_python("-m", "pytest", *tests)
    assert finished.returncode == 0 and " passed" in finished.stdout, finished.stdout
