"""The flags that all programs have which train a task on a frozen biLM (`elmo_chinese/task.py`)."""

import argparse

from elmo_chinese.options import SWITCH, boolean, flag_group, positive, positive_int, share, whole_number

# What a checkpoint brings along, or does not depend on.
OWN = ("model_save_dir", "load_dir", "use_gpu", "elmo_cache", "pretrain_elmo_model_path", "elmo_dict_dir",
       "elmo_boundaries", "elmo_legacy")  # fmt: skip
# What VisualDL compares runs by.
HPARAMS = ("elmo_l2_coef", "elmo_dropout", "batch_size", "max_epoch", "num_iterations", "patience",
           "base_learning_rate", "random_seed")  # fmt: skip


def add_elmo(parser: argparse.ArgumentParser, task: str, dropout: float, dropped: str) -> None:
    """Add where the biLM comes from and how its layers become vectors.

    Args:
        task: what is trained, for the help. dropout: default of --elmo_dropout, with what it is `dropped` from.
    """
    flag = flag_group(parser, "ELMo")
    flag(
        "--pretrain_elmo_model_path",
        str,
        "",
        f"checkpoint of train.py, Fluid folder, or an archive of one; empty: a {task} without ELMo",
    )
    flag("--elmo_dict_dir", str, "", "vocabulary file of a Fluid folder (a checkpoint of train.py brings its own)")
    flag("--elmo_l2_coef", share, 0.001, "L2 decay of the weights of the mix")
    flag("--elmo_dropout", share, dropout, f"dropped from {dropped}, in training")
    flag("--elmo_boundaries", boolean, False, "run the biLM over <S> … </S>", **SWITCH)
    flag(
        "--elmo_legacy",
        boolean,
        False,
        "repeat the original's two faults in the encoder, see bilm.ElmoEncoder",
        **SWITCH,
    )
    flag("--elmo_cache", str, "float32", "the layers of all texts are computed once and kept in a file under "
         "--model_save_dir; float16 halves it, off computes them anew in each pass",
         choices=["float32", "float16", "off"])  # fmt: skip


def add_training(parser: argparse.ArgumentParser, examples: str, score: str, max_epoch: int, patience: int) -> object:
    """Add how long and how fast is trained; return what adds more flags to the group.

    Args:
        examples: what a batch consists of, and `score`: what decides which model is kept, for the help.
        max_epoch, patience: defaults.
    """
    flag = flag_group(parser, "training")
    flag("--batch_size", positive_int, 32, f"{examples} per step, of all processes together")
    flag("--max_epoch", positive_int, max_epoch, "stop after so many passes over the training data at the latest")
    flag("--num_iterations", whole_number, 0, "stop after so many steps at the latest; 0: no such limit")
    flag("--patience", positive_int, patience, f"stop after so many passes without a better {score}")
    flag("--base_learning_rate", positive, 1e-3, "of Adam")
    flag("--use_gpu", boolean, None, "default: use a GPU if there is one", **SWITCH)
    return flag


def add_output(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add where the run is kept, and how it is gone on with; `folder` is the default."""
    flag = flag_group(parser, "output and checkpoints")
    flag("--model_save_dir", str, folder, "folder of this run: checkpoints, the best model, log/")
    flag("--log_interval", positive_int, 20, "steps between two lines of figures")
    flag("--keep", positive_int, 1, "so many of the newest checkpoints stay, besides the best one")
    flag("--load_dir", str, "", "go on exactly from this checkpoint; auto: from the newest in --model_save_dir, if any")
