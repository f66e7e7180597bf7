"""The flags that all programs have which train a task on a frozen biLM (`elmo_chinese/training/task.py`)."""

from elmo_chinese.storage import checkpoint
from elmo_chinese.training.flags import (
    SWITCH,
    TrainingParser,
    boolean,
    keep,
    positive,
    positive_int,
    share,
    whole_number,
)

OF_MODEL = ("pretrain_elmo_model_path", "elmo_dict_dir", "elmo_boundaries", "elmo_legacy")
OF_START = ("elmo_cache", "use_gpu", "model_save_dir", "load_dir")


def bilm_path(text: str) -> str:
    """Return the checkpoint that the folder of a run stands for at this moment; any other path as it is."""
    of_run = text and (checkpoint.best_of(text) or any(checkpoint.candidates(text)))  # no path is not this folder
    return str(checkpoint.resolve(text)) if of_run else text


def add_elmo(parser: TrainingParser, task: str, dropout: float, dropped: str) -> None:
    """Add where the biLM comes from and how its layers become vectors.

    Args:
        task: what is trained, for the help. dropout: default of --elmo_dropout, with what it is `dropped` from.
    """
    flag = parser.group("ELMo")
    flag(
        "--pretrain_elmo_model_path",
        bilm_path,
        "",
        f"run or checkpoint of train.py, Fluid folder, or an archive of one; empty: a {task} without ELMo",
    )
    flag("--elmo_dict_dir", str, "", "vocabulary file of a Fluid folder (a checkpoint of train.py brings its own)")
    flag("--elmo_l2_coef", share, 0.001, "L2 decay of the weights of the mix")
    flag("--elmo_dropout", share, dropout, f"dropped from {dropped}, in training")
    flag("--elmo_boundaries", boolean, False, "run the biLM over <S> … </S>", **SWITCH)
    flag("--elmo_legacy", boolean, False,
         "repeat the original's two faults in the encoder, see bilm.ElmoEncoder", **SWITCH)  # fmt: skip
    flag("--elmo_cache", str, "float32", "the layers of all texts are computed once and kept in a file under "
         "--model_save_dir; float16 halves it, off computes them anew in each pass",
         choices=["float32", "float16", "off"])  # fmt: skip


def add_training(parser: TrainingParser, examples: str, score: str, max_epoch: int, patience: int) -> object:
    """Add how long and how fast is trained; return what adds more flags to the group.

    Args:
        examples: what a batch consists of, and `score`: what decides which model is kept, for the help.
        max_epoch, patience: defaults.
    """
    flag = parser.group("training")
    flag("--batch_size", positive_int, 32, f"{examples} per step, of all processes together")
    flag("--max_epoch", positive_int, max_epoch, "stop after so many passes over the training data at the latest")
    flag("--num_iterations", whole_number, 0, "stop after so many steps at the latest; 0: no such limit")
    flag("--patience", positive_int, patience, f"stop after so many passes without a better {score}")
    flag("--base_learning_rate", positive, 1e-3, "of Adam")
    flag("--use_gpu", boolean, None, "default: use a GPU if there is one", **SWITCH)
    return flag


def add_output(parser: TrainingParser, folder: str) -> None:
    """Add where the run is kept, and how it is resumed; `folder` is the default."""
    flag = parser.group("output and checkpoints")
    flag("--model_save_dir", str, folder, "folder of this run: checkpoints, the best model, log/")
    flag("--log_interval", positive_int, 20, "steps between two lines of figures")
    flag("--keep", keep, "1", "so many of the newest checkpoints stay, besides the best one; all: none is deleted")
    flag("--load_dir", str, "",
         "resume exactly from this checkpoint; auto: from the newest in --model_save_dir, if any")  # fmt: skip
