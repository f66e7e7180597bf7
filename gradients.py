"""Gradients of one step: their norm, clipping, and averaging over processes.

The tables of words (`BiLSTM.embedding`, `BiLM.softmax_weight`) may have row-sparse gradients, which hold only the
rows that a step used: Paddle's own optimizers update those rows alone. `paddle.DataParallel` averages the dense ones.
"""

import math

import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle.nn.clip import get_tensor_from_selected_rows, merge_selected_rows

# Optimizers that leave rows without a gradient alone, so that row-sparse gradients change nothing but the time.
SPARSE = ("adagrad", "sgd")


def row_gradient(table):
    """Return the row-sparse gradient of a table as `(rows [n], values [n, size])`."""
    return paddle.to_tensor(table.grad.rows()), get_tensor_from_selected_rows(table.grad)


def set_row_gradient(table, rows, values):
    """Give a table that row-sparse gradient: as the backward pass of a lookup, the only way Paddle makes one."""
    table.clear_gradient(False)
    with paddle.enable_grad():
        F.embedding(rows, table, sparse=True).backward(values)


@paddle.no_grad()
def clip_gradients(parameters, max_norm):
    """Scale all gradients down together if their global norm is above `max_norm`; return the norm before."""
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [
        get_tensor_from_selected_rows(merge_selected_rows(p.grad)) if p.grad.is_selected_rows() else p.grad
        for p in parameters
    ]
    norm = math.sqrt(float(paddle.add_n([paddle.dot(flat, flat) for flat in map(paddle.flatten, gradients)])))
    if norm > max_norm:
        for parameter in parameters:
            if parameter.grad.is_selected_rows():
                rows, values = row_gradient(parameter)
                set_row_gradient(parameter, rows, values * (max_norm / norm))
            else:
                parameter.grad.scale_(max_norm / norm)
    return norm


@paddle.no_grad()
def share_row_gradients(parameters):
    """Average row-sparse gradients over all processes (`paddle.DataParallel` averages the dense ones)."""
    for table in parameters:
        if table.grad is not None and table.grad.is_selected_rows():
            rows, values = row_gradient(table)
            most = paddle.to_tensor(len(rows))
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
            lacking = int(most) - len(rows)  # all processes must send as many: the rest are zeros for row 0
            rows, values = F.pad(rows, [0, lacking]), F.pad(values, [0, lacking, 0, 0])
            received = ([], [])
            for into, part in zip(received, (rows, values)):
                dist.all_gather(into, part)
            rows, values = map(paddle.concat, received)
            set_row_gradient(table, rows, values / dist.get_world_size())


def all_reduce_sum(values):
    """Return the sum over all processes of a short list of numbers."""
    if dist.get_world_size() == 1:
        return list(values)
    total = paddle.to_tensor(values, dtype="float64")
    dist.all_reduce(total)
    return total.tolist()


def data_parallel(lm):
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
