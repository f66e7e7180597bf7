"""The flags of `train.py`."""

from elmo_chinese.network.precision import PRECISIONS
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
OF_START = ("cache_dir", "batch_size", "accumulate", "use_gpu", "para_save_dir", "load_dir")


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
    flag("--cache_dir", str, None, "folder for the encoded text; default: .token_cache beside each training file")
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

    flag = parser.group("output and checkpoints")
    flag("--para_save_dir", str, "checkpoints",
         "folder of this run: checkpoints, log/ with metrics.jsonl and VisualDL")  # fmt: skip
    flag("--log_interval", positive_int, 100, "steps between two lines of figures")
    flag("--dev_interval", positive_int, 10000, "steps between two evaluations; one more is made at the end")
    flag("--save_interval", positive_int, 10000, "steps between two checkpoints; one more is made at the end")
    flag("--keep", keep, "3", "so many of the newest checkpoints stay, besides the best one; all: none is deleted")
    flag("--visualdl_embeddings", whole_number, 0, "show the vectors of so many frequent words in VisualDL at the end")
    flag("--load_dir", str, "",
         "resume exactly from this checkpoint; auto: from the newest in --para_save_dir, if any")  # fmt: skip
    flag("--load_pretraining_params", str, "",
         "start a new run from these weights: a checkpoint or a Fluid folder")  # fmt: skip

    parser.retire(RETIRED)
    return parser
