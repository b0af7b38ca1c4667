"""Signals: what reports call and colour them, and that nothing but a loss brings in torch."""

import subprocess
import sys

import pytest

from nakt_dist.signals import SIGNALS, AttentionTransferConfig, DistillationConfig, Signals
from nakt_dist.signals.kind import TRANSFER_LEARNING, Kind, following_kinds

BOTH = Kind(("attention", "distillation"))


def test_kinds_are_named_and_ordered_by_their_signals() -> None:
    alone = [kind.value for kind in following_kinds() if len(kind.signals) == 1]
    assert alone == [
        "Distillation",
        "Attention transfer",
        "Multi-label distillation",
        "DIST",
        "Hints",
        "Similarity preservation",
    ]
    assert BOTH.value == "Attention transfer and distillation"
    assert Kind(("hints", "dist")).value == "Hints and DIST"
    kinds = [TRANSFER_LEARNING, *following_kinds()]
    assert [len(kind.signals) for kind in kinds] == sorted(len(kind.signals) for kind in kinds)
    assert len({kind.value for kind in kinds}) == len(kinds) == 2 ** len(SIGNALS)
    assert BOTH in kinds


def test_no_two_kinds_share_a_colour_but_those_of_several_signals() -> None:
    kinds = [TRANSFER_LEARNING, BOTH, *(Kind((name,)) for name in SIGNALS)]
    colours = [each for kind in kinds for each in kind.colours]
    assert len(set(colours)) == len(colours)
    columns = [signal.column for signal in SIGNALS.values()]
    assert len(set(columns)) == len(columns)


def test_losses_are_added_up_in_one_order() -> None:
    chosen = {"attention": AttentionTransferConfig("paper"), "distillation": DistillationConfig()}
    assert list(Signals(**chosen).chosen()) == ["distillation", "attention"]


def test_settings_are_told_in_words() -> None:
    settings = {"beta": 4.0, "preset": None, "taps": [{"student": "a", "teacher": "b"}]}
    words = SIGNALS["attention"].describe_settings(settings)
    assert words == {"beta": "β 4", "preset": "taps a", "taps": "taps a"}
    told = SIGNALS["distillation"].describe_settings(
        {"temperature": 2.0, "weight": 1.0, "outputs": None}
    )
    assert list(told.values()) == ["temperature 2", "its weight 1", "outputs null"]
    told = SIGNALS["distillation"].describe_settings({"standardise": True})
    assert told == {"standardise": "logits standardised"}
    told = SIGNALS["multi_label"].describe_settings({"embeddings": {"student": "fc"}})
    assert told == {"embeddings": "with label embeddings"}
    told = SIGNALS["hints"].describe_settings({"taps": [{"student": "a"}] * 3, "weight": 1.0})
    assert told == {"taps": "taps a and a and 1 more", "weight": "its weight 1"}


@pytest.mark.parametrize("room", ["config", "records", "report", "signals"])
def test_settings_records_and_reports_do_without_torch(room: str) -> None:
    program = (
        "import importlib, pkgutil, sys\n"
        f"import nakt_dist.{room} as room\n"
        "for each in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):\n"
        "    importlib.import_module(each.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
