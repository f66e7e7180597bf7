"""Flags: what was given is told from what was not; each is fixed for a checkpoint, free, or none of its business."""

from elmo_chinese.command import OptionError
from elmo_chinese.training.flags import FIXED, MADE, OWN, SWITCH, TrainingParser, boolean, positive, positive_int

import pytest


def make_parser():
    parser = TrainingParser("program", "head")
    flag = parser.group("network", FIXED, True)
    flag("--size", positive_int, 4, "how large")
    flag("--kind", lambda text: text.lower(), "plain", "how", choices=["plain", "fancy"])
    flag = parser.group("training")
    flag("--rate --old_rate", positive, 0.5, "how fast", compared=True)
    flag("--files", str, [], "which", nargs="+")
    flag("--shuffle", boolean, False, "whether", **SWITCH)
    flag("--where", str, "here", "folder", OWN)
    flag("--source", str, "", "what the model is made from", MADE)
    parser.retire({"--gone": "nothing does it", "--lost": "something does"})
    return parser


def test_what_was_given_is_told_from_defaults():
    options, given, notes = make_parser().parse(["--old_rate", "0.5", "--shuffle", "--gone", "1", "2"])
    assert vars(options) == dict(size=4, kind="plain", rate=0.5, files=[], shuffle=True, where="here", source="")
    assert given == ["rate", "shuffle", "gone"] and notes == ["--gone has no effect: nothing does it"]


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "how fast (default: 0.5)" in shown and "which (" not in shown and "nothing does it" in shown


def test_a_checkpoint_fills_what_was_not_given():
    saved = dict(size=4, kind="fancy", rate=0.25, files=["a", "b"], where="there", unknown=1)
    parser = make_parser()
    options, given, _ = parser.parse([])
    assert parser.take_saved(options, given, saved, "x") is None
    filled = dict(size=4, kind="fancy", rate=0.25, files=["a", "b"], shuffle=False, where="here", source="")
    assert vars(options) == filled
    options, given, _ = parser.parse(["--rate", "1", "--where", "mine", "--size", "4"])
    assert parser.take_saved(options, given, saved, "x") == "changed on the command line: rate 0.25 → 1.0"
    assert (options.rate, options.where, options.kind) == (1.0, "mine", "fancy")
    assert parser.compared(options) == dict(size=4, kind="fancy", rate=1.0)
    assert [parser.names(resume) for resume in (FIXED, OWN)] == [["size", "kind"], ["where"]]


@pytest.mark.parametrize("typed, saved, message", [
    (["--size", "5"], dict(size=4), "--size is 5, but x has 4; leave it out to go on, or begin a new run"),
    (["--source", ""], dict(source="a"), "--source is '', but x has 'a'; leave it out"),
])  # fmt: skip
def test_sizes_and_what_the_model_was_made_from_must_be_the_checkpoints(typed, saved, message):
    parser = make_parser()
    options, given, _ = parser.parse(typed)
    with pytest.raises(OptionError, match=message):
        parser.take_saved(options, given, saved, "x")
    assert parser.take_saved(options, [], saved, "x") is None and vars(options).items() >= saved.items()


def test_flags_before_two_dashes_are_defaults_that_nobody_gave():
    parser = make_parser()
    options, given, notes = parser.parse(["--size", "7", "--rate", "2", "--gone", "--", "--rate", "3", "--lost"])
    assert (options.size, options.rate, given) == (7, 3.0, ["rate", "lost"]) and len(notes) == 1
    assert (
        parser.take_saved(options, given, dict(size=9, rate=4.0), "x") == "changed on the command line: rate 4.0 → 3.0"
    )
    assert options.size == 9


def test_an_old_name_of_a_value_is_that_value():
    parser = make_parser()
    options, given, _ = parser.parse(["--kind", "fancy"])
    assert parser.take_saved(options, given, dict(kind="FANCY"), "x") is None and options.kind == "fancy"


@pytest.mark.parametrize("saved", [
    dict(size=0), dict(size=4.5), dict(size="8"), dict(size=None), dict(size=[3]), dict(kind="other"),
    dict(rate=float("nan")), dict(rate="fast"), dict(files="abc", rate=-1), dict(files=[1, {}]), dict(files=3),
    dict(shuffle="perhaps"), dict(shuffle="true"), [],
])  # fmt: skip
def test_saved_flags_that_could_not_have_been_given_are_refused(saved):
    parser = make_parser()
    options, given, _ = parser.parse([])
    with pytest.raises(OptionError, match="^x: "):
        parser.take_saved(options, given, saved, "x")


@pytest.mark.parametrize("module", ["elmo_chinese.training.options", "lac.options", "mrc.options"])
def test_sizes_are_fixed_and_places_are_none_of_a_checkpoints_business(module):
    parser = __import__(module, fromlist=["make_parser"]).make_parser("")
    fixed, own = (parser.names(resume) for resume in (FIXED, OWN))
    assert {"load_dir", "use_gpu"} <= set(own) and any(
        name.endswith("_size") or name.endswith("_dim") for name in fixed
    )
    assert all(parser.flags[name].compared for name in fixed)
    assert not any(parser.flags[name].compared for name in ("load_dir", "use_gpu"))
