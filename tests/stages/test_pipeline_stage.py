"""``nakt pipeline``: a mistake costs nothing, and what is done is not done again."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.cli import main
from nakt_dist.config import PipelineConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.stages import pipeline
from tests.recipes import file_hashes

PHANTOMS = {
    "stage": "phantoms",
    "config": {
        "kind": "breast_ultrasound", "output": "${root}/published", "count": 8, "image_size": 32,
    },
}  # fmt: skip
PACK = {
    "stage": "pack",
    "config": {
        "layout": "busi", "source": "${root}/published", "output": "${root}/shards",
        "image": {"height": 32, "width": 32}, "workers": 1,
    },
}  # fmt: skip


def changed(step: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**step, "config": {**step["config"], **settings}}


def test_two_steps_run_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    config = PipelineConfig(steps=[PHANTOMS, PACK], root=str(tmp_path / "runs"))

    record = pipeline.run(config)

    assert record.counts["steps"] == 2
    before = file_hashes(tmp_path / "runs")
    assert {"published/PHANTOM.json", "shards/manifest.json"} <= before.keys()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}
    pipeline.run(config)
    assert file_hashes(tmp_path / "runs") == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_file_and_another_root_are_taken_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"root": "nowhere", "steps": [PHANTOMS, PACK]}))

    assert main(["pipeline", f"--config={file}", f"--root={tmp_path / 'runs'}"]) == 0

    assert (tmp_path / "runs" / "shards" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (changed(PACK, sampels_per_shard=4), r"steps\[2\], pack: .*sampels_per_shard"),
        (changed(PACK, samples_per_shard="four"), r"steps\[2\], pack: .*samples_per_shard"),
        (changed(PACK, samples_per_shard=0), r"steps\[2\], pack: .*samples_per_shard"),
        (changed(PACK, image={"hieght": 32}), r"steps\[2\], pack: .*hieght"),
        ({"stage": "pakc", "config": PACK["config"]}, r"steps\[2\]"),
        ({"stage": "pack"}, r"steps\[2\]"),
        ({"stage": "pipeline", "config": {"steps": []}}, r"steps\[2\]"),
    ],
)
def test_a_mistake_in_the_last_step_is_found_before_the_first_begins(
    tmp_path: Path, last: dict[str, Any], message: str
) -> None:
    config = PipelineConfig(steps=[PHANTOMS, last], root=str(tmp_path / "runs"))

    with pytest.raises(ConfigurationError, match=message):
        pipeline.run(config)

    assert not (tmp_path / "runs").exists()


def test_a_misspelt_setting_names_the_nearest(tmp_path: Path) -> None:
    config = PipelineConfig(
        steps=[PHANTOMS, changed(PACK, sampels_per_shard=4)], root=str(tmp_path / "runs")
    )
    with pytest.raises(ConfigurationError, match="did you mean 'samples_per_shard'"):
        pipeline.run(config)


def test_a_failing_step_keeps_what_was_done_before_it(tmp_path: Path) -> None:
    wrong = changed(PACK, layout="voc2012")
    config = PipelineConfig(steps=[PHANTOMS, wrong], root=str(tmp_path / "runs"))
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"root": config.root, "steps": config.steps}))

    assert main(["pipeline", f"--config={file}"]) == 1

    assert (tmp_path / "runs" / "published" / "PHANTOM.json").exists()
    pipeline.run(PipelineConfig(steps=[PHANTOMS, PACK], root=config.root))
    assert (tmp_path / "runs" / "shards" / "manifest.json").exists()


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ConfigurationError, match="pipeline was started as 2 processes"):
        pipeline.run(PipelineConfig(steps=[PHANTOMS, PACK], root=str(tmp_path / "runs")))

    assert not (tmp_path / "runs").exists()
