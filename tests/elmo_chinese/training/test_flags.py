"""Flags: what was typed wins, then what the checkpoint has, then what a script puts before `--`, then the default."""

from elmo_chinese.command import OptionError
from elmo_chinese.training.flags import SWITCH, TrainingParser, boolean, keep, positive, positive_int

import pytest


def make_parser():
    parser = TrainingParser("program", "head", of_model=["size", "kind", "source"], of_start=["where"])
    flag = parser.group("network")
    flag("--size", positive_int, 4, "how large")
    flag("--kind", lambda text: text.lower(), "plain", "how", choices=["plain", "fancy"])
    flag = parser.group("training")
    flag("--rate --old_rate", positive, 0.5, "how fast")
    flag("--files", str, [], "which", nargs="+")
    flag("--shuffle", boolean, False, "whether", **SWITCH)
    flag("--where", str, "here", "folder")
    flag("--source", str, "", "what the model is made from")
    parser.retire({"--gone": "nothing does it", "--lost": "something does"})
    return parser


@pytest.mark.usefixtures("shown")
def test_what_was_typed_is_told_from_defaults(shown, capsys):
    options, typed = make_parser().parse(["--old_rate", "0.5", "--shuffle", "--gone", "1", "2"])
    assert vars(options) == dict(size=4, kind="plain", rate=0.5, files=[], shuffle=True, where="here", source="")
    assert typed == {"rate", "shuffle", "gone"}
    assert capsys.readouterr().out == "--gone has no effect: nothing does it\n"


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "how fast (default: 0.5)" in shown and "which (" not in shown and "nothing does it" in shown


@pytest.mark.usefixtures("shown")
def test_a_checkpoint_fills_what_was_not_typed(shown, capsys):
    saved = dict(size=4, kind="fancy", rate=0.25, files=["a", "b"], shuffle=True, where="there", unknown=1)
    parser = make_parser()
    options, _ = parser.parse([], saved, "x")
    filled = dict(size=4, kind="fancy", rate=0.25, files=["a", "b"], shuffle=True, where="here", source="")
    assert vars(options) == filled and capsys.readouterr().out == ""
    options, _ = parser.parse(["--rate", "1", "--where", "mine", "--size", "4", "--gone"], saved, "x")
    assert capsys.readouterr().out == "changed on the command line: rate 0.25 → 1.0\n"
    assert (options.rate, options.where, options.kind) == (1.0, "mine", "fancy")
    assert parser.compared(options) == dict(size=4, kind="fancy", rate=1.0, shuffle=True)


@pytest.mark.parametrize("typed, saved, message", [
    (["--size", "5"], dict(size=4), "--size is 5, but x has 4; leave it out to go on, or begin a new run"),
    (["--source", ""], dict(source="a"), "--source is '', but x has 'a'; leave it out"),
])  # fmt: skip
def test_what_the_model_was_made_from_must_be_the_checkpoints(typed, saved, message):
    parser = make_parser()
    with pytest.raises(OptionError, match=message):
        parser.parse(typed, saved, "x")
    assert vars(parser.parse([], saved, "x")[0]).items() >= saved.items()


@pytest.mark.usefixtures("shown")
def test_flags_before_two_dashes_are_defaults_that_nobody_typed(shown, capsys):
    arguments = ["--size", "7", "--rate", "2", "--gone", "--", "--rate", "3", "--lost"]
    options, typed = make_parser().parse(arguments)
    assert (options.size, options.rate, typed) == (7, 3.0, {"rate", "lost"})
    assert capsys.readouterr().out == "--lost has no effect: something does\n"
    options, _ = make_parser().parse(arguments, dict(size=9, rate=4.0), "x")
    assert (options.size, options.rate) == (9, 3.0)
    assert capsys.readouterr().out == "changed on the command line: rate 4.0 → 3.0\n"


def test_another_spelling_of_a_value_is_that_value(capsys):
    options, _ = make_parser().parse(["--kind", "fancy"], dict(kind="FANCY"), "x")
    assert options.kind == "fancy" and capsys.readouterr().out == ""


@pytest.mark.parametrize("saved", [
    dict(size="8"), dict(size=0), dict(size=4.5), dict(size=None), dict(size=[3]), dict(size=True), dict(kind="other"),
    dict(rate=float("nan")), dict(rate="fast"), dict(rate=-1), dict(files=[1, {}]), dict(files={}),
    dict(files=["a", "--size=9"]), dict(shuffle="perhaps"), [],
])  # fmt: skip
def test_saved_flags_that_could_not_have_been_typed_are_refused(saved):
    with pytest.raises(OptionError, match="^x: "):
        make_parser().parse([], saved, "x")


def test_all_or_a_number_of_checkpoints_is_kept():
    assert [keep(text) for text in ("all", "3")] == ["all", "3"]
    parser = TrainingParser("program", "", (), ())
    parser.group("")("--keep", keep, "3", "")
    for text in ("0", "none", "-1"):
        with pytest.raises(OptionError, match="--keep: "):
            parser.parse(["--keep", text])


@pytest.mark.parametrize("module", ["elmo_chinese.training.options", "lac.options", "mrc.options"])
def test_sizes_are_the_models_and_places_are_of_one_start(module):
    parser = __import__(module, fromlist=["make_parser"]).make_parser("")
    assert {*parser.of_model, *parser.of_start} <= set(parser.defaults)
    assert {"load_dir", "use_gpu"} <= set(parser.of_start) and not set(parser.of_start) & set(parser.of_model)
    sizes = [name for name in parser.defaults if name.endswith("_dim") or name in ("hidden_size", "embed_size")]
    assert sizes and set(sizes) <= set(parser.of_model)
