"""Training steps of a language model on any batch, without text, reader or folder: for benchmarks and tests."""

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from elmo_chinese.training import loop  # noqa: E402
from elmo_chinese.training.metrics import StepClock  # noqa: E402

import paddle  # noqa: E402

from train import Pretraining, make_parser  # noqa: E402


class Steps(Pretraining):
    """The language model in the loop of training (`train.Pretraining`), and `step`, which does one update.

    Args:
        model: a `BiLM`, or a `paddle.DataParallel` around one. optimizer: of its parameters.
        first_row: the number of this process's first row in the global batch.
        flags: of `train.py`, by name.
    """

    def __init__(self, model, optimizer, first_row=0, **flags):
        self.options, _ = make_parser("").parse(["--reset_states", "0"])
        vars(self.options).update(flags)
        self.model, self.network = model, model._layers if isinstance(model, paddle.DataParallel) else model
        self.parameters, self.optimizer = model.parameters(), optimizer
        self.options.learning_rate, self.max_grad_norm = optimizer.get_lr(), self.options.max_grad_norm
        self.train_reader, self.root = SimpleNamespace(first_row=first_row), "nowhere"
        self.progress, self.clock, self.states = loop.Progress(), StepClock(), None

    def step(self, batch):
        """Train on x, y, x_reverse, y_reverse, int64 `[rows, steps]`; return loss and gradient norm."""
        self.options.num_steps = batch[0].shape[1]
        before, batch = self.progress.losses, loop.Batch(batch, batch[0].size, batch[0].size)
        norm, self.states, _ = loop.do_step(self, self.progress, batch, self.states, self.clock, False)
        return self.progress.losses - before, norm
