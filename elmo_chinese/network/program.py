"""Networks as programs: what differs while `paddle.jit.save`, `paddle.jit.to_static` or `paddle.static` record one.

In dynamic mode sizes are numbers, and recurrences have kernels and backward passes of their own. A program must hold
for any number of sentences and words, and for every machine: sizes are tensors where they are not known, and a
recurrence is a loop of Paddle's operators. Both are the same network with the same weights.
"""

import warnings
from pathlib import Path
from typing import Callable, List, Sequence, Union

import paddle

Size = Union[int, paddle.Tensor]

# Steps of a recurrence in one round of its loop: the loop's own operators take a third of a step's time.
AT_ONCE = 4


def in_program() -> bool:
    """Say whether operators are being recorded for a program, instead of executed."""
    return not paddle.in_dynamic_mode()


def shape(tensor: paddle.Tensor) -> List[Size]:
    """Return the sizes of a tensor; in a program, those that are not known are int64 tensors of one number."""
    if not in_program():
        return list(tensor.shape)
    sizes = paddle.shape(tensor).astype("int64")
    return [sizes[axis] if size < 0 else int(size) for axis, size in enumerate(tensor.shape)]


def refuse_training(layer: paddle.nn.Layer, inputs: paddle.Tensor) -> None:
    """Raise `RuntimeError` if a recurrence is to be trained in a program: Paddle hands no gradient through its loop.

    Args:
        layer: with the recurrence's weights, in training mode or not. inputs: of the recurrence.
    """
    if layer.training and not all(tensor.stop_gradient for tensor in [inputs, *layer.parameters()]):
        raise RuntimeError(
            "a recurrence cannot be trained as a program, as Paddle hands no gradient through its loop; train without "
            "paddle.jit.to_static, and call eval() of the network before it is saved"
        )


def loop(step: Callable, inputs: paddle.Tensor, *states: paddle.Tensor) -> paddle.Tensor:
    """Run a recurrence in a program.

    Args:
        step: function of a step's input, `[…]`, and the states → the states after it.
        inputs: float32 `[steps, …]`.
        states: before the first step.

    Returns:
        the first state after each step, `[steps, …]`.
    """
    if inputs.shape[0] > 0:  # a fixed number of steps needs no loop, nor an array of tensors, which ONNX has not
        results = []
        for of_step in paddle.unbind(inputs):
            states = step(of_step, *states)
            results.append(states[0])
        return paddle.stack(results)
    steps = paddle.shape(inputs)[:1].astype("int64")
    places, last = paddle.arange(AT_ONCE, dtype="int64"), steps - 1
    written = paddle.tensor.create_array(inputs.dtype)
    if not paddle.framework.in_pir_mode():  # Paddle 2 wants to know what the array holds
        written = paddle.tensor.array_write(paddle.stack([states[0]] * AT_ONCE), paddle.zeros([1], "int64"), written)

    def body(number, places, written, *states):
        results = []
        for of_step in paddle.unbind(paddle.gather(inputs, paddle.minimum(places, last))):
            states = step(of_step, *states)
            results.append(states[0])
        written = paddle.tensor.array_write(paddle.stack(results), number, written)
        return [number + 1, places + AT_ONCE, written, *states]

    start = [paddle.zeros([1], "int64"), places, written, *states]
    _, _, written, *_ = paddle.static.nn.while_loop(lambda number, *_: number * AT_ONCE <= last, body, start)
    # Steps after the last one, in the last round, are left out again.
    return paddle.tensor.manipulation.tensor_array_to_tensor(written, axis=0)[0][:steps]


def save_program(network: paddle.nn.Layer, path: Path, specs: Sequence[paddle.static.InputSpec]) -> None:
    """Save a network with `paddle.jit.save`, as `path` with Paddle's own endings."""
    with warnings.catch_warnings():  # that of Paddle's own layers on an attribute of its own tells a user nothing
        warnings.filterwarnings("ignore", r"The Attr\(force_cpu\)")
        paddle.jit.save(network, str(path), input_spec=list(specs))


def as_it_is(function: Callable) -> Callable:
    """Keep Paddle from rewriting a function when a program is made: it says itself what is different then."""
    return paddle.jit.not_to_static(function)
