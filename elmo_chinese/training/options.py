"""The flags of `train.py`, and those that all programs have which train a task on a frozen biLM."""

from typing import Callable

from elmo_chinese.network.precision import PRECISIONS
from elmo_chinese.storage import checkpoint
from elmo_chinese.training.flags import (
    SWITCH,
    TrainingParser,
    boolean,
    keep,
    positive,
    positive_int,
    seed,
    share,
    whole_number,
)

# Flags of the original that mean nothing any more, and what does their work now.
RETIRED = {
    "--local": "the launcher decides how many processes train: CPU_NUM or CUDA_VISIBLE_DEVICES with run.sh",
    "--update_method": "gradients are always averaged over the processes of paddle.distributed.launch",
    "--test_nccl": "paddle.distributed.launch reports when processes cannot reach each other",
    "--use_custom_samples": "--sample_softmax draws its own negative samples",
    "--enable_ce": "every figure is in metrics.jsonl",
    "--data_path": "--train_path, --test_path and --vocab_path name the data",
}

OF_MODEL = ("embed_size", "hidden_size", "num_layers", "cell_clip", "proj_clip", "optim", "load_pretraining_params")
OF_START = ("cache_dir", "verify_cache", "batch_size", "accumulate", "use_gpu", "para_save_dir", "load_dir")


def optimizer(text: str) -> str:
    return "rmsprop" if text == "rprop" else text


def make_parser(description: str) -> TrainingParser:
    """Return the parser; `description` is the head of its help."""
    parser = TrainingParser("train.py", description, OF_MODEL, OF_START)

    flag = parser.group("data")
    flag(
        "--train_path", str, "", "training text: glob pattern (quote it), folder or file; one segmented sentence a line"
    )
    flag("--test_path", str, "", "held-out text for dev perplexity, same form; empty: no evaluation")
    flag("--vocab_path", str, "", "vocabulary, one word a line, most frequent first; make it with preprocess.py")
    flag("--cache_dir", str, None, "folder for the encoded text, best on a local disk; default: .token_cache beside it")
    flag("--verify_cache", boolean, False, "read text and cache at the start even if neither seems changed", **SWITCH)
    flag("--all_train_tokens", positive_int, None, "override the counted words of one epoch; sets the number of steps")
    flag("--shuffle", boolean, False, "draw the order of sentences anew each epoch, mixed over the files",
         **SWITCH)  # fmt: skip
    flag("--random_seed", seed, 0, "seed of initial weights, shuffling, dropout and negative samples")

    flag = parser.group("network (a checkpoint fits only the same)")
    flag("--embed_size", positive_int, 512, "size of word embedding and LSTM projection")
    flag("--hidden_size", positive_int, 4096, "size of the LSTM cells; the first to lower when memory is short")
    flag("--num_layers", positive_int, 2, "LSTM layers per direction")
    flag("--cell_clip", positive, 3.0, "bound of the LSTM cells")
    flag("--proj_clip", positive, 3.0, "bound of the LSTM projections")

    flag = parser.group("training")
    flag("--batch_size", positive_int, 128,
         "rows per process and pass; lower it when memory is short")  # fmt: skip
    flag("--accumulate", positive_int, 1,
         "passes per step: equals an N times larger batch in the memory of one")  # fmt: skip
    flag("--num_steps", positive_int, 20, "words per row and pass; gradients reach back this far")
    flag("--max_epoch", positive, 10.0, "stop after so many passes over the text; fractions are fine")
    flag("--optim", optimizer, "adagrad", "optimizer; rprop is the old name of rmsprop",
         choices=["adagrad", "adam", "sgd", "rmsprop"])  # fmt: skip
    flag("--learning_rate", positive, 0.2, "0.2 is adagrad's; on news adam did best with 0.002, rmsprop with 0.001 "
         "(docs/experiments.md)")  # fmt: skip
    flag("--lr_schedule", str, "constant", "linear: the learning rate falls to zero over the run",
         choices=["constant", "linear"])  # fmt: skip
    flag("--reset_states", share, 0.1, "each row starts a step from a zero LSTM state with this probability; "
         "0: never, as the original")  # fmt: skip
    flag("--max_grad_norm", positive, 10.0, "gradients are scaled down to this global norm")
    flag("--dropout", share, 0.1, "dropped at each layer's input and at the top; more for a small corpus")
    flag("--sample_softmax", boolean, False, "train on sampled words: much faster with a large vocabulary", **SWITCH)
    flag(
        "--n_negative_samples_batch", positive_int, 8000, "sampled words per step and direction; with --sample_softmax"
    )
    flag("--precision", str, "float32", "bfloat16: multiply in bfloat16 in training, with AVX512-BF16",
         choices=[*PRECISIONS])  # fmt: skip
    flag("--use_gpu", boolean, None, "default: use a GPU if there is one", **SWITCH)

    flag = add_output(parser, "--para_save_dir", "checkpoints", 100, "3")
    flag("--dev_interval", positive_int, 10000, "steps between two evaluations; one more is made at the end")
    flag("--save_interval", positive_int, 10000, "steps between two checkpoints; one more is made at the end")
    flag("--visualdl_embeddings", whole_number, 0, "show the vectors of so many frequent words in VisualDL at the end")
    flag("--load_pretraining_params", str, "",
         "start a new run from these weights: a checkpoint or a Fluid folder; words that both vocabularies have keep "
         "their rows, others start fresh")  # fmt: skip
    flag("--pretraining_vocab_path", str, "",
         "vocabulary of the weights, if they are a Fluid folder's (a checkpoint brings its own)")  # fmt: skip

    parser.retire(RETIRED)
    return parser


def add_output(parser: TrainingParser, name: str, folder: str, log_interval: int, kept: str) -> Callable[..., None]:
    """Add where the run is kept, and how it is resumed; return what adds more flags to the group.

    Args:
        name: of the flag for the folder of the run. folder, log_interval, kept: defaults.
    """
    flag = parser.group("output and checkpoints")
    flag(name, str, folder, "folder of this run: checkpoints, log/ with metrics.jsonl and VisualDL")
    flag("--log_interval", positive_int, log_interval, "steps between two lines of figures")
    flag("--step_timeout", positive, None, "end the process, so that it can be started again, after so many seconds "
         "without a step; default: 1800, or 20 times the median step if that is longer")  # fmt: skip
    flag("--keep", keep, kept, "so many of the newest checkpoints stay, besides the best one; all: none is deleted")
    flag("--load_dir", str, "", f"resume exactly from this checkpoint; auto: from the newest in {name}, if any")
    return flag


# --- tasks ---

TASK_OF_MODEL = ("pretrain_elmo_model_path", "elmo_dict_dir", "elmo_boundaries", "elmo_legacy")
TASK_OF_START = ("elmo_cache", "use_gpu", "model_save_dir", "load_dir")


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


def add_training(
    parser: TrainingParser, examples: str, score: str, max_epoch: int, patience: int
) -> Callable[..., None]:
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
