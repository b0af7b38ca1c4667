"""An ONNX file is the network that it was exported from, in another form."""

import json

import pytest

from nakt_dist.report.content import make_document
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.pooled import pool
from nakt_dist.report.roles import Role
from nakt_dist.report.runs import collect
from nakt_dist.report.tables import capabilities
from tests.records import (
    annotations,
    lineage,
    pseudo_masks,
    scores,
    sha,
    write_evaluation,
    write_training,
)


def write_onnx_test(root, original, trained, mean=0.8, **where):
    folder = write_evaluation(root / f"{original}-onnx", trained, scores(mean), **where)
    path = folder / "record.json"
    record = json.loads(path.read_text())
    record["details"] |= {"exported_from": sha(original), "network": original}
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("teaches", ["teacher", "teacher-onnx"])
@pytest.mark.parametrize("both", [False, True])
def test_it_plays_the_part_of_its_original_and_counts_once(tmp_path, teaches, both):
    trained = lineage(annotations())
    write_onnx_test(tmp_path, "teacher", trained)
    if both:
        write_evaluation(tmp_path / "teacher", trained, scores(0.81))
    student = lineage(pseudo_masks("thyroid", [teaches]))
    write_evaluation(tmp_path / "student", student, scores(0.6))
    found = collect([tmp_path])
    told = [(run.role, run.name, run.network.label) for run in found.evaluations]
    form = (" (ONNX)", ", ONNX") if not both else ("", "")
    assert told[0] == (Role.TEACHER, f"teacher{form[0]}", f"U-Net{form[1]}")
    assert [each[1] for each in told[1:]] == ["student"]
    reasons = [each.reason for each in found.left_out]
    assert ["is counted: Dice 80.00 % here, 81.00 % there" in each for each in reasons] == [
        True
    ] * both
    (capability,) = capabilities(found.evaluations).values()
    assert capability.percent == pytest.approx(100 * 60 / (81 if both else 80))
    assert "of 2 networks" in to_markdown(make_document(found, "Title"))


def test_it_is_no_second_seed_nor_fold_of_its_original(tmp_path):
    trained = lineage(annotations())
    write_training(tmp_path / "runs" / "one", trained)
    write_evaluation(tmp_path / "one", trained, scores(0.8))
    write_onnx_test(tmp_path, "one", trained, splits=("another",), first_key=8)
    found = collect([tmp_path])
    assert [run.name for run in found.evaluations] == ["one", "one (ONNX)"]
    assert pool(found, []) == []
