"""Gradients of one step: their norm, clipping, and averaging over processes.

The tables of words (`BiLSTM.embedding`, `BiLM.softmax_weight`) may have row-sparse gradients, which hold only the
rows that a step used: Paddle's own optimizers update those rows alone. `paddle.DataParallel` averages the dense ones.
"""

import math
from typing import Iterable, List, Optional, Sequence, Tuple

from elmo_chinese.network import kernels

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle.nn.clip import _squared_l2_norm, get_tensor_from_selected_rows, merge_selected_rows

# Optimizers that leave rows without a gradient alone, so that row-sparse gradients change nothing but the time.
SPARSE = ("adagrad", "sgd")

Parameters = Iterable[paddle.Tensor]


class Adagrad(paddle.optimizer.Adagrad):
    """Paddle's Adagrad, with one pass over a gradient in C++ (`cpp/updates.cc`) that clips it, too.

    Attributes:
        scale: what the next step multiplies gradients with, where `in_cpp()`.
    """

    scale = 1.0

    @staticmethod
    def in_cpp() -> bool:
        """Say whether gradients are scaled by the step itself."""
        return kernels.library() is not None

    def _append_optimize_op(self, block, param_and_grad):
        if not self.in_cpp():
            return super()._append_optimize_op(block, param_and_grad)
        parameter, gradient = param_and_grad
        rate = self.get_lr() * parameter.optimize_attr["learning_rate"]
        moment = self._get_accumulator(self._moment_acc_str, parameter)
        numbers = [rate, self._epsilon, self.scale]
        if gradient.is_selected_rows():
            rows, values = merged_rows(gradient)
            return kernels.call("adagrad_rows", values.shape, numbers, [rows], [parameter], [values], [moment])
        return kernels.call("adagrad", [math.prod(parameter.shape)], numbers, [parameter], [gradient], [moment])


def make_optimizer(name: str, learning_rate: float, parameters: Sequence[paddle.Tensor]) -> paddle.optimizer.Optimizer:
    """Return the optimizer a flag names. Clipping is done by `scale_gradients`."""
    common = dict(learning_rate=learning_rate, parameters=parameters)
    if name == "adagrad":
        return Adagrad(epsilon=0.0, initial_accumulator_value=1.0, **common)
    if name == "adam":
        return paddle.optimizer.Adam(**common)
    if name == "sgd":
        return paddle.optimizer.SGD(**common)
    return paddle.optimizer.RMSProp(**common)


def row_gradient(gradient: paddle.Tensor) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """Return a row-sparse gradient as `(rows [n], values [n, size])`; a row may come more than once."""
    return paddle.to_tensor(gradient.rows()), get_tensor_from_selected_rows(gradient)


def merged_rows(gradient: paddle.Tensor) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """Return a row-sparse gradient as `(rows [n], values [n, size])`, each row once."""
    return row_gradient(merge_selected_rows(gradient))


def set_row_gradient(table: paddle.Tensor, rows: paddle.Tensor, values: paddle.Tensor) -> None:
    """Give a table that row-sparse gradient: as the backward pass of a lookup, the only way Paddle makes one."""
    table.clear_gradient(False)
    with paddle.enable_grad():
        F.embedding(rows, table, sparse=True).backward(values)


@paddle.no_grad()
def _sum_of_squares(parameters: Parameters) -> paddle.Tensor:
    """Return the sum of the squares of all gradients, float64, on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [
        get_tensor_from_selected_rows(merge_selected_rows(gradient)) if gradient.is_selected_rows() else gradient
        for gradient in gradients
    ]
    # On 4 million numbers 2e-6 off at most. Not paddle.dot, clip_grad_norm_ or, in Paddle 3, paddle.linalg.norm: these
    # add in one order and are 0.7 to 2 % off. One operator a tensor, as each is a launch on a device.
    return paddle.concat([_squared_l2_norm(gradient).reshape([1]) for gradient in gradients]).sum(dtype="float64")


def gradient_norm(parameters: Parameters) -> float:
    """Return the norm of all gradients together."""
    return math.sqrt(float(_sum_of_squares(parameters)))


def step_figures(losses: List[paddle.Tensor], stop: bool, parameters: Parameters) -> Tuple[float, float, bool]:
    """Return what Python must know of a step before the update; they are read at once, as each read waits for a GPU.

    Args:
        losses: tensors with a number each, which sum up to this process's loss.
        stop: whether this process was asked to stop.
        parameters: with gradients that are averaged over processes already.

    Returns:
        the mean loss of all processes, the norm of all gradients together, and whether any process was asked to stop.
    """
    with paddle.no_grad():
        loss = paddle.stack(losses).sum(dtype="float64")
        figures = paddle.stack([loss, paddle.full([], float(stop), "float64")])
        if dist.get_world_size() > 1:
            dist.all_reduce(figures)
        squares = _sum_of_squares(parameters).reshape([1])
        loss, asked, squares = paddle.concat([figures, squares]).tolist()
    return loss / dist.get_world_size(), math.sqrt(squares), asked > 0


@paddle.no_grad()
def scale_gradients(
    parameters: Parameters, norm: float, max_norm: float, optimizer: Optional[paddle.optimizer.Optimizer] = None
) -> None:
    """Scale all gradients down together if their global norm is above `max_norm`.

    Args:
        norm: see `gradient_norm`.
        optimizer: an `Adagrad` that can is left to scale gradients when it uses them.
    """
    scale = max_norm / norm if norm > max_norm else 1.0
    if isinstance(optimizer, Adagrad) and optimizer.in_cpp():
        optimizer.scale = scale
    elif scale < 1:
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter.grad.is_selected_rows():
                rows, values = row_gradient(parameter.grad)
                set_row_gradient(parameter, rows, values * scale)
            else:
                parameter.grad.scale_(scale)


@paddle.no_grad()
def share_row_gradients(parameters: Parameters) -> None:
    """Average row-sparse gradients over all processes (`paddle.DataParallel` averages the dense ones).

    All sum up the rows that any of them has, each row once: negatives are the same in every process, and frequent words
    come in most.
    """
    for table in parameters:
        if table.grad is not None and table.grad.is_selected_rows():
            mine, values = merged_rows(table.grad)
            used = paddle.zeros([table.shape[0]], "int32").put_along_axis(mine, paddle.ones([], "int32"), 0)
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
            rows = paddle.nonzero(used).flatten()
            places = paddle.cumsum(used, dtype="int64")[mine] - 1
            total = paddle.zeros([len(rows), table.shape[1]]).scatter_(places, values)
            dist.all_reduce(total)
            set_row_gradient(table, rows, total / dist.get_world_size())


def all_reduce_sum(values: Sequence[float]) -> List[float]:
    """Return the sum over all processes of a short list of numbers."""
    if dist.get_world_size() == 1:
        return list(values)
    total = paddle.to_tensor(values, dtype="float64")
    dist.all_reduce(total)
    return total.tolist()


def data_parallel(lm: paddle.nn.Layer) -> paddle.DataParallel:
    """Return the model for one of several processes; row-sparse gradients are left to `share_row_gradients`."""
    tables = []
    if lm.lstm.sparse:
        tables = [lm.lstm.embedding] + ([lm.softmax_weight] if lm.n_negative_samples else [])
    for table in tables:  # what is not trainable at this moment, DataParallel leaves alone
        table.stop_gradient = True
    model = paddle.DataParallel(lm)
    for table in tables:
        table.stop_gradient = False
    return model
