"""``python -m benchmarks`` asks its questions; how fast anything is, is not judged."""

import json
import types

import pytest
import torch

from benchmarks import __main__ as runner
from benchmarks.comparing import Scale, at_least, in_turns

# Those that train build the papers' networks even in a smoke test, which is too slow for CI.
QUICK = ("augmentation", "evaluating", "indexes", "loading", "packing", "starting", "teaching")


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.timeout(180)
def test_quick_questions_can_be_asked(tmp_path, capsys):
    output = tmp_path / "answers.json"
    assert runner.main([*QUICK, "--smoke", "--output", str(output)]) == 0
    told = json.loads(output.read_text())
    assert list(told["answers"]) == list(QUICK)
    for name, answer in told["answers"].items():
        assert answer["tables"], name
        for table in answer["tables"]:
            ours = [row for row in table["rows"] if "nakt" in row["way"]]
            assert ours and all(row["failed"] is None for row in ours), table["title"]
    assert "## Targets" in capsys.readouterr().out


def test_a_question_that_breaks_is_told_and_the_others_are_asked(monkeypatch, tmp_path, capsys):
    def broken(scale):
        raise RuntimeError("no such thing")

    def missed(scale):
        ways = {"plain": lambda: 1, "nakt": lambda: 1}
        return [in_turns("nothing", ways, "plain", scale, {"nakt": at_least(1e9)})]

    answers = {"benchmarks.one": broken, "benchmarks.two": missed}
    monkeypatch.setattr(runner, "QUESTIONS", ("one", "two"))
    monkeypatch.setattr(
        runner.importlib,
        "import_module",
        lambda name: types.SimpleNamespace(__doc__="What?", measure=answers[name]),
    )
    assert runner.main(["--smoke"]) == 1
    told = capsys.readouterr()
    assert "could not be asked: one" in told.err and "| >= 1e+09 | no |" in told.out
    assert runner.main(["two", "--smoke"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [(["startng"], "no question startng; there are attention"), (["--gpu"], "finds no GPU")],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_measured(
    words, message, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        runner.main(words)
    told = capsys.readouterr()
    assert message in told.err and not told.out


def test_a_peer_that_is_missing_or_fails_is_a_row(tmp_path):
    def missing():
        raise ModuleNotFoundError("No module named 'other'", name="other")

    def failing():
        raise ValueError("wrong")

    ways = {"plain": lambda: 10, "missing": missing, "failing": failing}
    table = in_turns("three", ways, "plain", Scale(tmp_path, rounds=2))
    assert [row.failed for row in table.rows] == [
        None, "other is not installed", "failed: ValueError: wrong"
    ]  # fmt: skip
    assert "other is not installed" in table.markdown()
