"""The flags of `lac.train`."""

from elmo_chinese.training import options
from elmo_chinese.training.flags import TrainingParser, positive, positive_int, seed, share

# Flags of the original that mean nothing any more, and what does their work now.
RETIRED = {
    "--save_model_per_batchs": "dev F1 is measured, and a checkpoint written, after each pass over the training lines",
    "--traindata_shuffle_buffer": "all lines are shuffled",
    "--eval_window": "--patience says after how many passes without a better dev F1 training stops",
    "--corpus_type_list": "--train_data takes several files, folders and glob patterns",
    "--corpus_proportion_list": "all training lines are used once in each pass",
}

SIZES = ("word_emb_dim", "grnn_hidden_dim", "bigru_num")
OF_MODEL = (*SIZES, "init_from", "word_dict_path", *options.TASK_OF_MODEL)
OF_START = ("label_dict_path", "word_rep_dict_path", *options.TASK_OF_START)


def make_parser(description: str) -> TrainingParser:
    """Return the parser; `description` is the head of its help."""
    parser = TrainingParser("lac.train", description, OF_MODEL, OF_START)
    files = dict(nargs="+", metavar="PATH")

    flag = parser.group("data")
    flag("--train_data --traindata_dir", str, [], "tagged lines: files, folders or glob patterns (quote them)", **files)
    flag(
        "--dev_data --testdata_dir", str, [], "held-out lines that decide which model is kept; none: the last", **files
    )
    flag("--test_data", str, [], "lines to score the kept model on at the end", **files)
    flag(
        "--init_from",
        str,
        "",
        "start from a model, with its tags and words: lac or seg (released, see lac.release), or a folder of one or of "
        "a model of lac.train",
    )
    flag(
        "--label_dict_path",
        str,
        "",
        "the tag set, one tag a line, as lac.corpus makes it; empty: that of lac/data, or if it lacks a type of the "
        "training lines, the types of these",
    )
    flag("--word_dict_path", str, "", "vocabulary of the word embedding; empty: all words of the training lines")
    flag(
        "--word_rep_dict_path",
        str,
        None,
        "replacements of characters before a word is looked up; default: lac/conf/q2b.dic (full width to half width); "
        "empty: none",
    )
    flag("--on_bad_line", str, "error", "what to do with a line that cannot be used", choices=["error", "skip"])
    flag("--random_seed", seed, 0, "seed of initial weights, order of the lines, and dropout")

    options.add_elmo(parser, "tagger", 0.5, "the LSTM layers before the mix")

    flag = parser.group("network (a checkpoint fits only the same)")
    flag("--word_emb_dim", positive_int, 128, "size of the word embedding")
    flag("--grnn_hidden_dim", positive_int, 256, "size of a GRU; there are two in a block")
    flag("--bigru_num", positive_int, 2, "blocks of a forward and a backward GRU")

    flag = options.add_training(parser, "lines", "dev F1", 30, 5)
    flag("--emb_learning_rate", positive, 5.0, "multiplier for the word embedding")
    flag("--crf_learning_rate", positive, 0.2, "multiplier for the CRF")
    flag("--unknown_rate", share, 0.5, "words seen once are read as <UNK> so often, which gives <UNK> a meaning")

    options.add_output(parser, "--model_save_dir", "lac_model", 20, "1")

    parser.retire(RETIRED)
    return parser
