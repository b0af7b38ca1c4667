"""Figures are real pictures, and what they show follows from the numbers."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.drawing.sheets import Group, Outline, Panel, draw_sheet
from nakt_dist.drawing.style import ORANGE, SKY, figure_style, make_panels, shorten, to_png
from nakt_dist.records.pseudo_sets import read_pseudo_set
from nakt_dist.report.dice_figures import draw_dice, draw_distribution
from nakt_dist.report.excluded_figures import draw_excluded
from nakt_dist.report.histograms import JudgedSet, draw_entropy, draw_target_pixels
from nakt_dist.report.learning_curves import draw_learning_curves, moving_mean, read_curve
from nakt_dist.report.runs import LeftOut, collect
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.records import (
    annotations,
    lineage,
    scores,
    write_evaluation,
    write_experiment,
    write_pseudo_set,
    write_training,
)


def pixels_of(png: bytes) -> np.ndarray:
    """Decodes a PNG wholly; uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def count_colour(png: bytes, colour: str) -> int:
    """Counts the pixels of a colour, give or take what smoothing edges changes."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return int((np.abs(pixels_of(png).astype(int) - wanted).max(axis=2) < 8).sum())


def test_dice_figures_have_room_for_every_run(tmp_path: Path):
    collection = collect([write_experiment(tmp_path)])
    few = draw_dice(collection.evaluations[:2], 1)
    many = draw_dice(collection.evaluations, 2)
    assert (few.name, many.name) == ("dice-1.png", "dice-2.png")
    assert pixels_of(many.png).shape[0] > 2 * pixels_of(few.png).shape[0]
    assert draw_dice(collection.evaluations, 2).png == many.png
    left_out: list[LeftOut] = []
    distribution = draw_distribution(collection.evaluations, 1, left_out)
    assert pixels_of(distribution.png).size and not left_out


def test_dice_per_image_must_be_what_the_record_sums_up(tmp_path: Path):
    for name in ("right", "absent", "damaged", "of-another-run"):
        write_evaluation(tmp_path / name, lineage(annotations()), scores(0.5))
    write_evaluation(tmp_path / "elsewhere" / "x", lineage(annotations()), scores(0.6))
    (tmp_path / "absent" / "predictions.parquet").unlink()
    (tmp_path / "damaged" / "predictions.parquet").write_bytes(b"PAR1")
    other = tmp_path / "elsewhere" / "x" / "predictions.parquet"
    (tmp_path / "of-another-run" / "predictions.parquet").write_bytes(other.read_bytes())
    runs = [run for run in collect([tmp_path]).evaluations if run.name != "x"]
    left_out: list[LeftOut] = []
    assert draw_distribution(runs, 1, left_out) is not None
    reasons = {Path(each.place).name: each.reason for each in left_out}
    assert set(reasons) == {"absent", "damaged", "of-another-run"}
    assert "mean 60.0000 %, its record says 8 of 50.0000 %" in reasons["of-another-run"]
    assert str(tmp_path) not in "".join(reasons.values())
    assert draw_distribution(runs[:1], 1, []) is None  # "absent", the first by name


def test_images_without_a_defined_dice_are_no_points(tmp_path: Path):
    write_evaluation(tmp_path / "run", lineage(annotations()), [0.5, float("nan"), 0.7])
    collection = collect([tmp_path])
    assert collection.evaluations[0].images == 2
    left_out: list[LeftOut] = []
    assert draw_distribution(collection.evaluations, 1, left_out) is not None and not left_out


def test_moving_mean_reaches_equally_far_to_both_sides():
    values = np.array([1.0, 2.0, 6.0, 4.0, 5.0])
    assert moving_mean(values, 3).tolist() == [1.5, 3.0, 4.0, 5.0, 4.5]
    assert moving_mean(values, 4).tolist() == moving_mean(values, 3).tolist()
    assert moving_mean(values, 5).tolist() == [3.0, 3.25, 3.6, 4.25, 5.0]
    assert moving_mean(values, 1).tolist() == values.tolist()


def test_a_curve_is_read_up_to_a_line_cut_by_a_kill(tmp_path: Path):
    folder = write_training(tmp_path / "run", lineage(annotations()), (2.0, 1.0), (0.25, 0.5))
    curve = read_curve("run", folder / "metrics.jsonl")
    assert curve.loss.tolist() == [2.0, 1.0] and curve.loss_steps.tolist() == [1, 2]
    assert curve.dice.tolist() == [25.0, 50.0]


@pytest.mark.parametrize(
    "text",
    [
        "", "[1]\n", '{"step": 1}\n', '{"loss": 1}\n', "damage\n", "\xff\n",
        f'{{"step": 4, "loss": 1{400 * "0"}}}\n', f'{{"step": 1{400 * "0"}, "loss": 4}}\n',
    ],
)  # fmt: skip
def test_a_training_without_usable_metrics_is_named(tmp_path: Path, text: str):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5))
    folder = write_training(tmp_path / "training", lineage(annotations()))
    (folder / "metrics.jsonl").write_text(text, encoding="latin-1")
    left_out: list[LeftOut] = []
    assert draw_learning_curves(collect([tmp_path]).trainings, left_out) is None
    assert left_out[0].place.endswith("training") and "metrics.jsonl" in left_out[0].reason


@pytest.mark.parametrize("values", [(1.7e308, 1), (1, 1.7e308)], ids=["step", "loss"])
def test_a_number_that_no_loss_can_be_is_left_out_of_its_curve(tmp_path: Path, values):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5))
    path = write_training(tmp_path / "training", lineage(annotations())) / "metrics.jsonl"
    pairs = [(1, 2.0), values, (3, 1.0)]
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in pairs]
    path.write_text("\n".join(lines) + "\n")
    assert read_curve("run", path).loss.tolist() == [2.0, 1.0]
    assert draw_learning_curves(collect([tmp_path]).trainings, []) is not None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_metrics_that_are_no_regular_file_are_named_and_not_waited_for(tmp_path: Path, kind: str):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5))
    path = write_training(tmp_path / "training", lineage(annotations())) / "metrics.jsonl"
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    left_out: list[LeftOut] = []
    assert draw_learning_curves(collect([tmp_path]).trainings, left_out) is None
    assert "it is not a regular file" in left_out[0].reason


def test_learning_curves_are_drawn_for_every_training(tmp_path: Path):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5))
    for number in range(4):
        validation = (0.2, 0.4) if number else ()
        write_training(
            tmp_path / f"run-$x_{number}$", lineage(annotations()), validation=validation
        )
    figure = draw_learning_curves(collect([tmp_path]).trainings, [])
    height = pixels_of(figure.png).shape[0]
    loss_only = [found for found in collect([tmp_path]).trainings if "_0" in found.place]
    assert height > 3 * pixels_of(draw_learning_curves(loss_only, []).png).shape[0]
    assert "moving mean over a twentieth" in figure.caption


@pytest.mark.parametrize(
    "rule",
    [
        ExclusionRule(),
        ExclusionRule(alpha=None),
        ExclusionRule(beta=None),
        ExclusionRule(alpha=1e9, beta=0.0),
        ExclusionRule(scale_alpha=True, combine="both"),
    ],
)
@pytest.mark.parametrize("soft", [True, False])
def test_histograms_of_any_rule(tmp_path: Path, rule: ExclusionRule, soft: bool):
    rows = [("train", 0, 0.0), ("train", 4096, 7.9), ("test", 300, 2.0)]
    write_pseudo_set(tmp_path / "pseudo", rows, soft=soft)
    pseudo = read_pseudo_set(tmp_path / "pseudo")
    for draw in (draw_entropy, draw_target_pixels):
        figure = draw([JudgedSet(pseudo, rule)])
        assert pixels_of(figure.png).std() > 0
        assert figure.png == draw([JudgedSet(pseudo, rule)]).png


def test_a_histogram_panel_per_set(tmp_path: Path):
    sets = []
    for name in ("a", "b", "c", "d"):
        write_pseudo_set(tmp_path / name, [("train", 300, 2.0)], dataset=name)
        sets.append(JudgedSet(read_pseudo_set(tmp_path / name), ExclusionRule()))
    one, four = draw_entropy(sets[:1]), draw_entropy(sets)
    assert pixels_of(four.png).shape[0] == 2 * pixels_of(one.png).shape[0]


def make_panel(mask: np.ndarray, soft: np.ndarray | None = None) -> Panel:
    return Panel(np.zeros(mask.shape, np.uint8), "caption", (Outline(mask, "annotation"),), soft)


def test_a_sheet_shows_outlines_and_nothing_for_an_empty_mask():
    empty = np.zeros((24, 32), dtype=bool)
    square = empty.copy()
    square[8:16, 8:16] = True
    without, drawn, whole = (
        draw_sheet("Title", [Group("Group", (make_panel(mask),))])
        for mask in (empty, square, ~empty)
    )
    # The legend has the colour too; an outline adds to it.
    assert count_colour(drawn, SKY) > count_colour(without, SKY) + 100
    assert count_colour(whole, SKY) > count_colour(without, SKY) + 100


def test_a_soft_mask_is_a_tint_as_strong_as_it_is_sure():
    empty = np.zeros((24, 32), dtype=bool)
    sheets = [
        draw_sheet("Title", [Group("Group", (make_panel(empty, np.full((24, 32), level)),))])
        for level in (0.0, 0.5, 1.0)
    ]
    brightness = [pixels_of(sheet)[..., 0].mean() for sheet in sheets]
    assert brightness == sorted(brightness) and brightness[2] > brightness[0] + 5


def test_a_sheet_takes_colour_images_and_groups_without_images():
    colour = Panel(np.full((24, 32, 3), (250, 10, 10), np.uint8), "red")
    sheet = draw_sheet("Title", [Group("Kept", (colour,)), Group("Excluded", ())])
    assert count_colour(sheet, "#FA0A0A") > 1000
    assert pixels_of(draw_sheet("Title", [Group("Kept", ())])).size
    two = Panel(
        np.zeros((24, 32), np.uint8),
        "two",
        tuple(Outline(np.eye(24, 32, k, dtype=bool), str(k)) for k in (0, 4)),
    )
    assert count_colour(draw_sheet("Title", [Group("Both", (two,))]), ORANGE) > 100


def test_ticks_of_values_that_hardly_differ_are_the_values():
    with figure_style():
        canvas, [[axes]] = make_panels(1, 1, (3, 2), 3)
        axes.plot([1, 2], [100, 100])
        axes.set_ylim(99.9, 100.1)
        to_png(canvas)
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert axes.get_yticklabels()[0].get_text() == "99.90"


def test_long_names_keep_both_ends():
    assert shorten("short") == "short"
    assert shorten("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"


def test_students_that_differ_in_what_was_excluded_are_drawn_over_its_share(tmp_path: Path):
    runs = collect([write_experiment(tmp_path)]).evaluations
    figure = draw_excluded(runs, 1)
    assert (figure.name, figure.title.split(" on ")[0]) == ("excluded-1.png", "Dice")
    assert "N < 256 or E > 2.5 bits" in figure.caption
    # Without the student of all images there is nothing to compare.
    assert draw_excluded([run for run in runs if run.name != "student"], 1) is None
    (tmp_path / "shown.png").write_bytes(figure.png)
