import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from nakt_dist import __version__, cli
from nakt_dist.cli import STAGES, main
from nakt_dist.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    NaktError,
    UnusableSample,
)
from nakt_dist.runtime.processes import process_place, say
from tests.datasets import make_packed_dataset


@pytest.fixture
def stage_that(monkeypatch):
    """Puts a function in the place of the verify stage."""

    def put(function):
        monkeypatch.setattr(cli, "load_stage", lambda name: SimpleNamespace(run=function))

    return put


def raising(error):
    def run(config):
        raise error

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_its_settings(stage, capsys):
    with pytest.raises(SystemExit) as ended:
        main([stage, "--help"])
    assert ended.value.code == 0
    explained = capsys.readouterr().out
    assert f"usage: nakt {stage}" in explained
    assert "--config" in explained
    assert STAGES[stage].summary in explained


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_function_to_run(stage):
    assert callable(cli.load_stage(stage).run)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_the_stages(word, capsys):
    assert main([word]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed and stage.summary in printed for name, stage in STAGES.items())


def test_without_words_the_help_is_an_error(capsys):
    assert main([]) == 2
    assert "usage: nakt STAGE" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_module_and_command_are_the_same_program():
    printed = subprocess.run(
        [sys.executable, "-m", "nakt_dist", "--version"], check=True, capture_output=True, text=True
    )
    assert printed.stdout.strip() == __version__
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="nakt")
    assert command.load() is main


def test_the_exit_code_of_the_process_is_that_of_the_program(tmp_path):
    for words, code in ((["verify", str(tmp_path)], 1), (["verify", "--foldr=x"], 2)):
        ended = subprocess.run(
            [sys.executable, "-m", "nakt_dist", *words], check=False, capture_output=True, text=True
        )
        assert ended.returncode == code
        assert ended.stderr.startswith("nakt: error:")
        assert "Traceback" not in ended.stderr


def test_whole_shards_end_well_and_damaged_ones_with_shard_and_key(tmp_path, capsys):
    folder = make_packed_dataset(tmp_path, images=2, splits={"train": 1.0})
    assert main(["verify", str(folder)]) == 0
    shard = folder / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 1
    message = capsys.readouterr().err
    assert "nakt: error:" in message
    assert "train-000000.tar, key image_00" in message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verfy", "folder"], "did you mean 'verify'?"),
        (["verify", "folder", "--repare=true"], "did you mean 'repair'?"),
        (["train", "--output=runs", "--epochs=3"], "did you mean 'recipe.epochs'?"),
        (["teach", "--output=pseudo", "--flips=[horizontal]"], "did you mean 'teachers.flips'?"),
        (["verify", "folder", "--repair=perhaps"], "repair"),
        (["verify"], "required: folder"),
        (["verify", "one", "two"], "'two'"),
        (["verify", "folder", "--config=absent.yaml"], "absent.yaml"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_one_line(words, told, capsys):
    assert main(words) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.startswith("nakt: error: ")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("a setting"), 2),
        (DatasetError("the data"), 1),
        (CheckpointError("the weights"), 1),
        (UnusableSample("truncated", "the sample"), 1),
        (NaktError("something"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_the_user_can_mend_is_told_without_a_traceback(error, code, stage_that, capsys):
    stage_that(raising(error))
    assert main(["verify", "folder"]) == code
    assert capsys.readouterr().err == f"nakt: error: {error}\n"


def test_an_error_of_the_system_is_told_with_its_file(stage_that, capsys):
    stage_that(raising(PermissionError(13, "Permission denied", "/data/shards")))
    assert main(["verify", "folder"]) == 1
    assert capsys.readouterr().err == "nakt: error: Permission denied: /data/shards\n"


def test_full_memory_is_told_without_a_traceback(stage_that, capsys):
    stage_that(raising(MemoryError("Unable to allocate 9.1 TiB")))
    assert main(["verify", "folder"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("nakt: error: this machine's memory is full (Unable to allocate 9.1")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("redirection", "told", "code"),
    [
        ("| true", "nakt: error: what this program prints is read no more: a pipe was closed\n", 1),
        (">&-", "", 0),
        ("2>&-", "", 0),  # a traceback, which could not be read, would change the exit code
        (">/dev/full", "nakt: error: No space left on device: no file named\n", 1),
    ],
)
@pytest.mark.parametrize("words", ["--help", "watch . --once"])
def test_an_output_that_nobody_reads_or_that_is_full_is_no_traceback(
    words, redirection, told, code, tmp_path
):
    if redirection == "| true" and words == "--help":
        told = ""  # whoever asked for the first lines has them
    command = f"set -o pipefail; {sys.executable} -m nakt_dist {words} {redirection}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.stderr, ended.returncode) == (told, code)
    assert bool(ended.stdout) == (redirection == "2>&-")


def test_no_name_that_a_dataset_gives_steers_the_terminal(stage_that, capsys):
    say("damaged: \x1b[2J\rkey\nand another")
    assert capsys.readouterr().err == "damaged: ?[2J?key\nand another\n"
    stage_that(raising(DatasetError("the key \x1b]0;owned\x07 is damaged")))
    assert main(["verify", "folder"]) == 1
    assert capsys.readouterr().err == "nakt: error: the key ?]0;owned? is damaged\n"


def test_an_interruption_ends_with_130_and_how_to_go_on(stage_that, capsys):
    stage_that(raising(KeyboardInterrupt()))
    assert main(["verify", "folder"]) == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("without number or file")])
def test_a_bug_is_not_hidden(error, stage_that):
    stage_that(raising(error))
    with pytest.raises(type(error), match=str(error)):
        main(["verify", "folder"])


def test_an_error_among_several_processes_names_the_rank(stage_that, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    stage_that(raising(DatasetError("the data")))
    assert main(["verify", "folder"]) == 1
    assert capsys.readouterr().err == "nakt: error (process 3): the data\n"


def test_the_configuration_reaches_the_stage_with_overrides(stage_that, tmp_path):
    seen = []
    stage_that(seen.append)
    path = tmp_path / "settings.yaml"
    path.write_text("folder: from_file\nworkers: 3\n")
    assert main(["verify", f"--config={path}", "--workers=5"]) == 0
    assert (seen[0].folder, seen[0].workers) == ("from_file", 5)


def test_printed_settings_are_yaml_and_nothing_is_run(stage_that, capsys):
    stage_that(raising(AssertionError("the stage was run")))
    with pytest.raises(SystemExit) as ended:
        main(["verify", "folder", "--print_config"])
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["folder"] == "folder"


def test_a_misspelt_setting_in_the_last_step_of_a_study_costs_nothing(tmp_path, capsys):
    steps = [
        {"stage": "phantoms", "config": {"kind": "dermoscopy", "output": "${root}/published"}},
        {"stage": "verify", "config": {"foldr": "${root}/published"}},
    ]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"steps": steps, "root": str(tmp_path / "root")}))
    assert main(["study", f"--config={path}"]) == 2
    message = capsys.readouterr().err
    assert "steps[2], verify" in message
    assert "did you mean 'folder'?" in message
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "two"}, "must be numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2"),
        ({"RANK": "-1"}, "RANK is -1"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(variables, words, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=words):
        process_place()


def test_a_process_started_alone_is_the_main_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    place = process_place()
    assert (place.rank, place.world_size, place.is_main) == (0, 1, True)
