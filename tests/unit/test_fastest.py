"""What ``auto`` of precision and memory format becomes, and that a run keeps it."""

import json
from pathlib import Path

import pytest

from nakt_dist.config import DataConfig, RecipeConfig, TrainConfig
from nakt_dist.runtime.devices import multiplies_bf16
from nakt_dist.stages.train_identity import resolve_auto
from nakt_dist.training import fastest

RECIPE = RecipeConfig(steps=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Sets what the machine seems to have."""

    def has(bf16: bool = False, gpu: bool = False, deepspeed: bool = False) -> None:
        monkeypatch.setattr(fastest, "multiplies_bf16", lambda device: bf16)
        monkeypatch.setattr(fastest, "gpu_is_wanted", lambda device: gpu)
        monkeypatch.setattr(fastest, "uses_deepspeed", lambda: deepspeed)

    return has


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, "float32, channels last"),
        ({"bf16": True}, "bf16 autocast, channels last"),
        ({"bf16": True, "gpu": True}, "bf16 autocast, channels last"),
        ({"gpu": True}, "float32"),
        ({"bf16": True, "deepspeed": True}, "bf16 autocast"),
    ],
)
def test_auto_is_what_is_fastest_on_the_machine(machine, found, told):
    machine(**found)
    assert fastest.describe(fastest.resolve(RECIPE, "auto", {})) == told


def test_what_is_set_stands(machine):
    machine(bf16=True)
    pinned = RecipeConfig(steps=1, precision="no", channels_last=False)
    assert fastest.resolve(pinned, "auto", {"precision": "bf16", "channels_last": True}) == pinned


@pytest.mark.parametrize("flags", ["flags: fpu amx_bf16 amx_tile", "flags: fpu avx512_bf16", None])
def test_a_cpu_needs_amx_for_bf16(tmp_path, flags):
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(flags)
    assert multiplies_bf16("cpu", path) is (flags is not None and "amx" in flags)


@pytest.mark.parametrize("sign", ["checkpoints/step-000000002", "record.json"])
def test_a_run_that_goes_on_keeps_what_it_began_with(machine, tmp_path: Path, sign: str):
    config = TrainConfig(str(tmp_path), DataConfig("unused"), RECIPE)
    begun = {"precision": "bf16", "channels_last": False}
    (tmp_path / "identity.json").write_text(json.dumps({"settings": {"recipe": begun}}))
    machine()
    assert resolve_auto(config).recipe.precision == "no"  # nothing is lost by beginning anew
    (tmp_path / sign).mkdir(parents=True)
    resolved = resolve_auto(config).recipe
    assert (resolved.precision, resolved.channels_last) == ("bf16", False)


@pytest.mark.parametrize("identity", ["{}", '{"settings": 3}', '{"settings": {"recipe": []}}'])
def test_an_identity_that_says_nothing_decides_nothing(machine, tmp_path: Path, identity: str):
    (tmp_path / "identity.json").write_text(identity)
    (tmp_path / "record.json").touch()
    machine()
    resolved = resolve_auto(TrainConfig(str(tmp_path), DataConfig("unused"), RECIPE)).recipe
    assert (resolved.precision, resolved.channels_last) == ("no", True)
