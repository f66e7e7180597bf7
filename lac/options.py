"""The flags of `lac.train`."""

import argparse

from elmo_chinese.options import Parser, boolean, positive, positive_int, seed, share, whole_number

# Flags of the original that mean nothing any more, and what does their work now.
RETIRED = {
    "--save_model_per_batchs": "dev F1 is measured, and a checkpoint written, after each pass over the training lines",
    "--traindata_shuffle_buffer": "all lines are shuffled",
    "--eval_window": "--patience says after how many passes without a better dev F1 training stops",
    "--corpus_type_list": "--train_data takes several files, folders and glob patterns",
    "--corpus_proportion_list": "all training lines are used once in each pass",
}
# What makes the network; a checkpoint only fits the same.
SIZES = ("word_emb_dim", "grnn_hidden_dim", "bigru_num")
# What VisualDL compares runs by, besides whether there is ELMo and the number of lines.
HPARAMS = (*SIZES, "elmo_l2_coef", "elmo_dropout", "batch_size", "max_epoch", "num_iterations", "patience",
           "base_learning_rate", "emb_learning_rate", "crf_learning_rate", "unknown_rate",
           "random_seed")  # fmt: skip
# What a checkpoint brings along, or does not depend on.
OWN = ("model_save_dir", "load_dir", "use_gpu", "elmo_cache", "pretrain_elmo_model_path", "elmo_dict_dir",
       "word_dict_path", "label_dict_path", "word_rep_dict_path", "init_from", "elmo_boundaries",
       "elmo_legacy")  # fmt: skip


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser; `description` is the head of its help."""
    parser = Parser(
        prog="lac.train",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def group(title):
        add = parser.add_argument_group(title).add_argument

        def flag(names, type, default, help, **more):
            shown = "" if default in (None, "", []) else f" (default: {default})"
            add(*names.split(), type=type, default=default, help=help + shown, **more)

        return flag

    switch = dict(nargs="?", const=True, metavar="true|false")
    files = dict(nargs="+", metavar="PATH")

    flag = group("data")
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
    flag("--label_dict_path", str, "lac/data/tag.dic", "the tag set, one tag a line; lac.corpus makes one")
    flag("--word_dict_path", str, "", "vocabulary of the word embedding; empty: all words of the training lines")
    flag("--word_rep_dict_path", str, "lac/conf/q2b.dic", "replacements of characters before a word is looked up")
    flag("--on_bad_line", str, "error", "what to do with a line that cannot be used", choices=["error", "skip"])
    flag("--random_seed", seed, 0, "seed of initial weights, order of the lines, and dropout")

    flag = group("ELMo")
    flag(
        "--pretrain_elmo_model_path",
        str,
        "",
        "checkpoint of train.py, Fluid folder, or an archive of one; empty: a tagger without ELMo",
    )
    flag("--elmo_dict_dir", str, "", "vocabulary file of a Fluid folder (a checkpoint of train.py brings its own)")
    flag("--elmo_l2_coef", share, 0.001, "L2 decay of the weights of the mix")
    flag("--elmo_dropout", share, 0.5, "dropped from the LSTM layers before the mix, in training")
    flag("--elmo_boundaries", boolean, False, "run the biLM over <S> … </S>", **switch)
    flag(
        "--elmo_legacy",
        boolean,
        False,
        "repeat the original's two faults in the encoder, see bilm.ElmoEncoder",
        **switch,
    )
    flag("--elmo_cache", str, "float32", "the layers of all lines are computed once and kept in a file under "
         "--model_save_dir; float16 halves it, off computes them anew in each pass",
         choices=["float32", "float16", "off"])  # fmt: skip

    flag = group("network (a checkpoint fits only the same)")
    flag("--word_emb_dim", positive_int, 128, "size of the word embedding")
    flag("--grnn_hidden_dim", positive_int, 256, "size of a GRU; there are two in a block")
    flag("--bigru_num", positive_int, 2, "blocks of a forward and a backward GRU")

    flag = group("training")
    flag("--batch_size", positive_int, 32, "lines per step, of all processes together")
    flag("--max_epoch", positive_int, 30, "stop after so many passes over the training lines at the latest")
    flag("--num_iterations", whole_number, 0, "stop after so many steps at the latest; 0: no such limit")
    flag("--patience", positive_int, 5, "stop after so many passes without a better dev F1")
    flag("--base_learning_rate", positive, 1e-3, "of Adam")
    flag("--emb_learning_rate", positive, 5.0, "multiplier for the word embedding")
    flag("--crf_learning_rate", positive, 0.2, "multiplier for the CRF")
    flag("--unknown_rate", share, 0.5, "words seen once are read as <UNK> so often, which gives <UNK> a meaning")
    flag("--use_gpu", boolean, None, "default: use a GPU if there is one", **switch)

    flag = group("output and checkpoints")
    flag("--model_save_dir", str, "lac_model", "folder of this run: checkpoints, the best model, log/")
    flag("--log_interval", positive_int, 20, "steps between two lines of figures")
    flag("--keep", positive_int, 1, "so many of the newest checkpoints stay, besides the best one")
    flag("--load_dir", str, "", "go on exactly from this checkpoint; auto: from the newest in --model_save_dir, if any")

    retired = parser.add_argument_group("flags of the original that are read and ignored")
    for name, reason in RETIRED.items():
        retired.add_argument(name, nargs="*", help=reason)
    return parser
