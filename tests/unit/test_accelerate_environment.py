"""What a file of Accelerate's settings means to processes that a scheduler starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.accelerate_environment import launch_environment, main

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
ZERO = """\
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: 1, zero3_init_flag: false}
use_cpu: false
num_machines: 2
machine_rank: 1
main_process_ip: 10.0.0.1
main_process_port: 1234
num_processes: 2
mixed_precision: bf16
"""
_PREFIXES = ("ACCELERATE_", "FSDP_", "KMP_")


@pytest.mark.parametrize("name", ["cpu.yaml", "zero.yaml"])
def test_the_variables_are_those_that_accelerate_launch_sets(name: str, tmp_path: Path) -> None:
    one_machine = ZERO.replace("num_machines: 2", "num_machines: 1").replace("rank: 1", "rank: 0")
    (tmp_path / "zero.yaml").write_text(one_machine.replace("processes: 2", "processes: 1"))
    config = CONFIGS / name if name == "cpu.yaml" else tmp_path / name
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\nopen(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", f"--config_file={config}"]

    # Torch and DeepSpeed set such variables in whichever test imports them first.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(_PREFIXES)}
    words = [*launch, script, tmp_path / "set"]
    ended = subprocess.run(words, capture_output=True, timeout=200, env=clean)

    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "set").read_text())
    expected = {key: value for key, value in found.items() if key.startswith(_PREFIXES)}
    assert expected
    assert launch_environment(config) == expected


def test_settings_of_several_machines_mean_the_same_wherever_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zero.yaml"
    file.write_text(ZERO)
    monkeypatch.setenv("RANK", "3")

    assert main([str(file)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "export ACCELERATE_DEEPSPEED_ZERO_STAGE=2" in lines
    assert "export ACCELERATE_MIXED_PRECISION=bf16" in lines
    names = {line.removeprefix("export ").split("=")[0] for line in lines}
    assert all(name.startswith("ACCELERATE_") for name in names), names


def test_values_are_quoted_for_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zero.yaml"
    settings = tmp_path / "it's $HOME.json"
    file.write_text(
        f'distributed_type: DEEPSPEED\ndeepspeed_config: {{deepspeed_config_file: "{settings}"}}\n'
        "compute_environment: LOCAL_MACHINE\nnum_processes: 1\nuse_cpu: false\nnum_machines: 1\n"
        "machine_rank: 0\nmixed_precision: 'no'\n"
    )

    assert main([str(file)]) == 0

    script = f'{capsys.readouterr().out}\nprintf %s "$ACCELERATE_DEEPSPEED_CONFIG_FILE"'
    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert ended.stdout == str(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- list\n", "holds a list, expected accelerate's settings by name"),
        ("a: !!python/object/apply:os.system [id]\n", "cannot be read as YAML"),
        ("a: [\n", "cannot be read as YAML"),
        (ZERO.replace("zero_stage", "zero_stag") + "unheard_of: 1\n", "does not take it"),
        (ZERO.replace("DEEPSPEED", "XLA"), "distributed_type is XLA"),
        (ZERO.replace("DEEPSPEED", "FSDP"), "distributed_type is FSDP, which nakt does not run"),
        (ZERO.replace("DEEPSPEED", "MEGATRON_LM"), "distributed_type is MEGATRON_LM"),
        (ZERO.replace("LOCAL_MACHINE", "AMAZON_SAGEMAKER"), "is AMAZON_SAGEMAKER"),
        (ZERO.replace("bf16", "b16"), "does not take it"),
    ],
)
def test_a_file_that_means_nothing_is_refused_in_one_line(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=told):
        launch_environment(file)
    assert main([str(file)]) == 2
    message = capsys.readouterr()
    assert message.out == ""
    assert message.err.startswith(f"nakt: error: {file}: ")
    assert message.err.count("\n") == 1


def test_an_absent_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["absent.yaml"]) == 2
    assert "absent.yaml: cannot be read as YAML" in capsys.readouterr().err
    assert main([]) == 2
