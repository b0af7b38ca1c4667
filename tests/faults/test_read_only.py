"""Inputs that cannot be written to, and outputs that cannot."""

import os
from pathlib import Path

import pytest

from nakt_dist.cli import main
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights
from tests.faults.disks import read_only
from tests.launching import finish
from tests.recipes import evaluate_config, file_hashes

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def test_every_stage_works_on_inputs_that_cannot_be_written_to(tmp_path: Path) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    inputs.mkdir()
    splits = {"train": 0.75, "validation": 0.25}
    dataset = make_packed_dataset(inputs, images=24, splits=splits)
    make_pseudo_labels(inputs, dataset)
    weights = make_weights(inputs / "tiny.safetensors", seed=7)
    finish(evaluate_config(inputs / "evaluation", dataset, weights))
    before = file_hashes(inputs)
    cpu = ("--device=cpu", "--threads=1")
    small = ("--image.height=32", "--image.width=32", "--workers=1")
    teachers = f'--teachers=[{{"weights": "{weights}"}}]'
    model = ("--model.name=unet", '--model.options={"base_channels": 4}')
    commands = [
        ("pack", "--layout=image_folder", f"--source={inputs / 'squares-published'}", *small),
        ("verify", str(dataset)),
        ("verify", str(inputs / "pseudo")),
        ("teach", f"--dataset={dataset}", teachers, *cpu),
        ("inspect", str(inputs / "pseudo"), f"--dataset={dataset}"),
        ("train", f"--data.dataset={dataset}", f"--data.pseudo_labels={inputs / 'pseudo'}",
         "--data.splits=[train]", f"--validation.dataset={dataset}",
         "--validation.splits=[validation]", f"--init={weights}",
         "--recipe.steps=2", "--recipe.global_batch_size=4", *cpu),
        ("train", f"--data.dataset={dataset}", "--data.streaming=true", "--data.shuffle_buffer=4",
         "--recipe.steps=2", "--recipe.global_batch_size=4", "--recipe.epochs=null", *model, *cpu),
        ("evaluate", f"--dataset={dataset}", f"--weights={weights}",
         "--splits=null", "--bootstrap_samples=100", *cpu),
        ("report", str(inputs / "evaluation")),
    ]  # fmt: skip

    with read_only(inputs) as is_real:
        if is_real:
            with pytest.raises(OSError, match="Read-only file system"):
                (inputs / "new").touch()
        for number, words in enumerate(commands):
            output = () if words[0] == "verify" else (f"--output={out / str(number)}",)
            assert main([*words, *output]) == 0, words

    assert file_hashes(inputs) == before


def test_an_output_that_cannot_be_written_to_is_one_clear_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = make_packed_dataset(tmp_path)
    weights = make_weights(tmp_path / "tiny.safetensors", seed=7)
    (tmp_path / "closed").mkdir()
    with read_only(tmp_path / "closed") as is_real:
        if not is_real and os.geteuid() == 0:
            pytest.skip("root writes anywhere, and no folder can be mounted read-only here")
        words = ("evaluate", f"--dataset={packed}", f"--weights={weights}", "--splits=null")
        status = main([*words, f"--output={tmp_path / 'closed' / 'out'}", "--device=cpu"])

    assert status == 1
    assert f"{tmp_path / 'closed' / 'out'}" in capfd.readouterr().err
