"""A threshold found on the teachers' own images, without a label."""

import json
import shutil
from dataclasses import replace

import pytest

from nakt_dist.config import DataConfig, InspectConfig, TrainConfig
from nakt_dist.config.recipe import RecipeConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.records.lineage_reading import parse_rule
from nakt_dist.records.pseudo_sets import apply_rule, read_pseudo_set, with_threshold_found
from nakt_dist.report.roles import describe_rule
from nakt_dist.stages import inspect
from nakt_dist.studies.paths import paths_of
from nakt_dist.transfer.exclusion import Calibration, ExclusionRule
from tests.records import annotations, sha, write_pseudo_set

OWN = [("validation", 900, bits / 10) for bits in range(101)] + [("train", 900, 0.1)] * 50
OTHERS = [("train", 900, bits) for bits in (0.5, 5.0, 9.4, 9.6, 12.0)] + [("train", 3, 0.5)]
BREAST = sha("packing of breast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    write_pseudo_set(folder / "own", OWN, "breast", BREAST, learnt_from=annotations())
    write_pseudo_set(folder / "others", OTHERS, learnt_from=annotations())
    write_pseudo_set(folder / "stranger", OWN, "breast", BREAST, ("another",))
    write_pseudo_set(folder / "larger", OWN, "breast", BREAST, size=(96, 96))
    write_pseudo_set(folder / "repacked", OWN, "breast", sha("repacked"), learnt_from=annotations())
    held = {"learnt_from": annotations(), "started_from": annotations(split="validation")}
    write_pseudo_set(folder / "started", OWN, "breast", BREAST, **held)
    return folder


def rule_of(folder, name="own", **settings):
    return ExclusionRule(calibration=Calibration(str(folder / name), **settings), alpha=10)


def found(folder, **settings):
    return with_threshold_found(
        rule_of(folder, **settings), read_pseudo_set(folder / "others").manifest
    )


@pytest.mark.parametrize(("percentile", "beta"), [(95, 9.5), (50, 5.0), (100, 10.0)])
def test_beta_is_a_percentile_of_the_entropies_of_images_that_teachers_did_not_learn_from(
    folder, percentile, beta
):
    rule = found(folder, percentile=percentile)
    assert rule.beta == pytest.approx(beta)
    assert rule.alpha == 10
    assert f"E > {beta:g} bits ({percentile} % of its teachers' own images" in describe_rule(rule)


def test_what_was_found_is_said_and_that_nobody_can_tell_of_images_packed_again(folder, capsys):
    assert found(folder).beta == 9.5
    own = "exclusion: β is 9.5 bits, above 95 % of 101 masks of breast\n"
    assert capsys.readouterr().err == own
    assert found(folder, name="repacked").beta == 9.5
    assert f"{own[:-1]}; teacher did not learn from this packing" in capsys.readouterr().err


def test_masks_by_the_onnx_form_of_a_teacher_are_its_own_and_that_is_said(folder, capsys):
    own = read_pseudo_set(folder / "others").manifest

    def by(original, height=64):
        seen = {"height": height, "width": None, "mean": 0.0, "std": 1.0}
        told = {"weights_sha256": sha("onnx"), "exported_from": original, "preprocessing": seen}
        return replace(own, teachers=tuple({**each, **told} for each in own.teachers))

    def with_input(manifest):
        seen = {"height": None, "width": None, "mean": 0.0, "std": 1.0}
        return tuple({**each, "preprocessing": seen} for each in manifest.teachers)

    calibrated = read_pseudo_set(folder / "own").manifest
    written = folder / "as onnx"
    shutil.copytree(folder / "own", written)
    replace(calibrated, teachers=with_input(calibrated)).write(written)
    assert with_threshold_found(rule_of(folder, "as onnx"), by(sha("teacher"))).beta == 9.5
    assert "; teacher wrote them in another form" in capsys.readouterr().err
    for other in (by(sha("another")), by(None), by(sha("teacher"), height=32)):
        with pytest.raises(ConfigurationError, match="the same teachers"):
            with_threshold_found(rule_of(folder, "as onnx"), other)


def test_the_smallest_expected_dice_is_found_likewise_and_takes_the_place_of_beta(folder, capsys):
    others = read_pseudo_set(folder / "others")
    rule = found(folder, measure="expected_dice", percentile=50)  # of 0, 0.01, …, 1
    told = "the smallest expected Dice is 0.5, below 50 % of 101 masks of breast"
    assert told in capsys.readouterr().err
    assert (rule.alpha, rule.beta, rule.smallest_expected_dice) == (10, None, 0.5)
    words = "expected Dice < 0.5 (50 % of its teachers' own images are above)"
    assert describe_rule(rule) == f"N < 10 or {words}"
    assert parse_rule(json.loads(json.dumps(rule.to_json()))) == rule
    verdict = apply_rule(others, rule)
    assert verdict.kept.tolist() == [True, True, False, False, False, False]
    assert not verdict.high_entropy.any() and verdict.counts(verdict.kept)["unsure"] == 0
    assert verdict.reasons[2:] == ["teachers not sure"] * 3 + ["target pixels below alpha"]


def test_a_smallest_expected_dice_of_0_is_said_to_exclude_nothing(folder, capsys):
    rule = found(folder, measure="expected_dice", percentile=100)
    assert rule.smallest_expected_dice == 0
    assert "below 100 % of 101 masks of breast; no mask is below 0" in capsys.readouterr().err
    binary = replace(read_pseudo_set(folder / "others").manifest, soft=False)
    asked = rule_of(folder, measure="expected_dice")
    assert with_threshold_found(asked, binary).beta is None  # of β alone binary masks say nothing


@pytest.mark.parametrize("field", ["beta", "smallest_expected_dice"])
def test_a_threshold_beside_the_expected_dice_that_is_to_be_found_is_refused(folder, field):
    rule = rule_of(folder, measure="expected_dice")
    with pytest.raises(ConfigurationError, match=rf"exclusion\.{field} must be left out .* finds"):
        replace(rule, **{field: 0.5})


def test_a_beta_beside_it_is_refused(folder):
    with pytest.raises(ConfigurationError, match=r"exclusion\.beta must be left out"):
        replace(rule_of(folder), beta=2.0)
    assert replace(rule_of(folder), beta=None).beta is None


def test_what_a_lineage_holds_is_beta_and_how_it_was_found_and_no_path(folder):
    rule = found(folder)
    told = rule.to_json()
    assert told["calibration"] == {
        "pseudo_labels": None, "splits": ("validation",), "percentile": 95, "measure": "entropy",
    }  # fmt: skip
    assert parse_rule({**told, "calibration": {"splits": ["validation"], "percentile": 95}}) == rule
    assert "calibration" not in ExclusionRule().to_json()


def test_the_rule_is_applied_with_the_beta_that_was_found_alone(folder):
    others = read_pseudo_set(folder / "others")
    assert apply_rule(others, found(folder)).kept.tolist() == [True] * 3 + [False] * 3
    with pytest.raises(AssertionError, match="the threshold is not found"):
        apply_rule(others, rule_of(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "stranger"}, "written by another at 64 × 64, the masks of thyroid by teacher"),
        ({"name": "larger"}, "at 96 × 96"),
        ({"splits": ("train",)}, "learnt from images of breast in splits"),
        ({"splits": None}, "learnt from images of breast in splits"),
        ({"name": "started"}, "or what it began with, learnt from images of breast"),
        ({"splits": ("test",)}, "has no mask in test; its splits are train, validation"),
    ],
)
def test_what_says_nothing_of_the_teachers_certainty_is_refused(folder, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        found(folder, **settings)


def test_a_beta_for_binary_masks_which_would_not_apply_is_refused(folder):
    binary = replace(read_pseudo_set(folder / "others").manifest, soft=False)
    with pytest.raises(ConfigurationError, match="gave binary ones, to which no β applies"):
        with_threshold_found(rule_of(folder), binary)


def test_no_folder_and_a_rule_by_class_are_refused(folder):
    manifest = read_pseudo_set(folder / "others").manifest
    with pytest.raises(ConfigurationError, match=r"calibration\.pseudo_labels must be a folder"):
        with_threshold_found(ExclusionRule(calibration=Calibration(None)), manifest)
    with pytest.raises(ConfigurationError, match=r"exclusion\.judged must be image"):
        replace(rule_of(folder), judged="any_class")


def test_inspect_shows_the_beta_that_was_found(folder, tmp_path, capsys):
    config = InspectConfig(
        str(folder / "others"), output=str(tmp_path / "out"), exclusion=rule_of(folder)
    )
    record = inspect.run(config)
    assert record.details["rule"]["beta"] == pytest.approx(9.5)
    assert record.counts["after"] == 3
    assert "E > 9.5 bits" in capsys.readouterr().out
    assert str(folder / "own") in (tmp_path / "out" / "config.yaml").read_text()


@pytest.mark.parametrize(("soft", "rule"), [(True, {}), (True, {"beta": None}), (False, {})])
def test_inspect_says_that_a_rule_asks_for_both_where_both_apply(tmp_path, capsys, soft, rule):
    write_pseudo_set(tmp_path / "masks", OTHERS, soft=soft)
    exclusion = ExclusionRule(alpha=10, combine="both", **rule)
    record = inspect.run(InspectConfig(str(tmp_path / "masks"), exclusion=exclusion))
    applies = soft and not rule
    assert record.counts["excluded"] == (0 if applies else 1)
    assert ("alone excludes nothing" in capsys.readouterr().out) == applies


def test_a_study_waits_for_the_masks_that_beta_comes_from(folder):
    data = DataConfig("shards", pseudo_labels="masks", exclusion=rule_of(folder))
    config = TrainConfig("out", data=data, recipe=RecipeConfig(steps=1))
    assert str((folder / "own").resolve()) in paths_of(config).reads
