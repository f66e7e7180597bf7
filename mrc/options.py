"""The flags of `mrc.train`."""

from elmo_chinese.training import options
from elmo_chinese.training.flags import TrainingParser, positive_int, seed, share

from mrc.evaluate import QuestionScores
from mrc.network import VECTORS

SIZES = ("word_emb_dim", "hidden_size", "elmo_vectors")
LIMITS = ("max_passage_len", "max_question_len", "max_answer_len")
OF_MODEL = (*SIZES, *LIMITS, "min_count", *options.TASK_OF_MODEL)


def make_parser(description: str) -> TrainingParser:
    """Return the parser; `description` is the head of its help."""
    parser = TrainingParser("mrc.train", description, OF_MODEL, options.TASK_OF_START)
    files = dict(nargs="+", metavar="PATH")

    flag = parser.group("data")
    flag("--train_data", str, [], "questions in SQuAD's or DuReader's form: files, folders or glob patterns", **files)
    flag("--dev_data", str, [], "held-out questions that decide which model is kept; none: the last", **files)
    flag("--test_data", str, [], "questions to score the kept model on at the end", **files)
    flag("--on_bad_line", str, "error", "what to do with what cannot be used", choices=["error", "skip"])
    flag("--min_count", positive_int, 2, "rarer words of the training texts are read as <UNK>")
    flag("--max_passage_len", positive_int, 500, "words of a passage that are read")
    flag("--max_question_len", positive_int, 60, "words of a question that are read")
    flag("--max_answer_len", positive_int, 200, "words of an answer at the most")
    flag("--random_seed", seed, 0, "seed of initial weights, order of the questions, and dropout")

    options.add_elmo(parser, "reader", 0.4, "the ELMo vectors")

    flag = parser.group("network (a checkpoint fits only the same)")
    flag("--word_emb_dim", positive_int, 128, "size of the word embedding")
    flag("--hidden_size", positive_int, 64, "size of a GRU; there are two in each of four blocks")
    flag("--elmo_vectors", str, "mix", "what of the biLM is joined to the word embedding: the trained mix of its "
         "layers, or its plain word embedding", choices=list(VECTORS))  # fmt: skip

    flag = options.add_training(parser, "questions (about)", "dev score", 20, 3)
    flag("--score", str, "rouge_l", "which dev score decides", choices=list(QuestionScores._fields))
    flag("--dropout", share, 0.2, "dropped before each GRU, in training")

    options.add_output(parser, "--model_save_dir", "mrc_model", 20, "1")
    return parser
