"""W&B's complaints: one line before anything is built, one warning later."""

import pytest
import wandb

from nakt_dist.cli import main
from nakt_dist.config import TrackingConfig
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.mirrors import TrackedRun
from nakt_dist.runtime.tracking import METRICS_NAME, Tracker
from nakt_dist.runtime.wandb_check import check_tracking
from nakt_dist.runtime.wandb_run import open_wandb, start_wandb
from tests.datasets import make_packed_dataset

KEY = "a1" * 20


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path_factory):
    """No variable, file or terminal from which W&B would take anything."""
    for name in (
        "API_KEY",
        "MODE",
        "BASE_URL",
        "ENTITY",
        "CONFIG_DIR",
        "RUN_ID",
        "SWEEP_ID",
        "RESUME_FROM",
    ):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("sys.stdin", None)
    return home


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"), splits={"train": 1.0})


def words(dataset, output, *more):
    return [
        f"--output={output}", f"--data.dataset={dataset}", "--recipe.steps=2", "--model.name=unet",
        '--model.options={"base_channels": 4}', "--device=cpu", "--threads=1", *more,
    ]  # fmt: skip


# ---------------------------------------------------------------------------- names


def test_a_team_in_the_project_is_told_apart():
    told = "set tracking.entity to team and tracking.project to chest"
    with pytest.raises(ConfigurationError, match=told):
        TrackingConfig(project="team/chest")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a/b/c", "with / in it"),
        ("/a", "with / in it"),
        ("a\\b", r"with \\ in it"),
        ("50 %", "with % in it"),
        ("a#b:c?", r"with # and \? and : in it"),
        ("", "which is empty"),
        ("   ", "which is empty"),
        (" a", "with blanks around it"),
        ("a\nb", "control characters"),
        ("a" * 129, "of 129 characters"),
    ],
)
def test_a_name_that_wandb_refuses_is_refused_by_its_field(name, told):
    with pytest.raises(ConfigurationError, match=f"tracking.project is .*{told}"):
        TrackingConfig(project=name)
    with pytest.raises(ConfigurationError, match=f"tracking.entity is .*{told}"):
        TrackingConfig(entity=name)


@pytest.mark.parametrize("name", ["chest", "Brüste (2024)", "a-b_c.d", "a" * 128])
def test_what_wandb_takes_as_a_project_is_taken(name, tmp_path):
    TrackingConfig(project=name)
    Tracker(TrackedRun(tmp_path, "run", {}, "offline", name), 0).close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_run_whose_folder_has_a_long_name_is_tracked(tmp_path):
    Tracker(TrackedRun(tmp_path, "r" * 200, {}, "offline", "project"), 0).close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


# -------------------------------------------------------------------- keys and variables


def test_online_without_a_key_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no W&B API key.*`wandb login`"):
        check_tracking(tmp_path, "online")
    check_tracking(tmp_path, "offline")
    check_tracking(tmp_path, "off")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("secret", "has 6 characters, expected 40 or more"),
        ("local-secret", "has 6 characters"),
        (f" {KEY}", "has blanks around it"),
        (f"{KEY}!", "other than letters"),
    ],
)
def test_a_key_that_is_none_is_refused_and_not_shown(key, told, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(ConfigurationError, match=told) as refused:
        check_tracking(tmp_path, "online")
    assert "WANDB_API_KEY" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("key", [KEY, f"local-{KEY}", "head.pay-load.sign_ature"])
def test_a_key_of_the_right_form_passes(key, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", key)
    check_tracking(tmp_path, "online")


def test_the_key_is_found_in_netrc_and_in_the_settings_of_wandb(
    tmp_path, monkeypatch, nothing_known
):
    netrc = nothing_known / ".netrc"
    netrc.write_text(f"machine own.server login user password {KEY}\n")
    with pytest.raises(ConfigurationError, match="no W&B API key"):
        check_tracking(tmp_path, "online")
    monkeypatch.setenv("WANDB_BASE_URL", "https://own.server")
    check_tracking(tmp_path, "online")
    netrc.write_text("machine own.server login user password short\n")
    with pytest.raises(ConfigurationError, match=r"\.netrc has 5 characters"):
        check_tracking(tmp_path, "online")
    netrc.unlink()
    settings = nothing_known / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\napi_key = {KEY}\n")
    check_tracking(tmp_path, "online")


@pytest.mark.parametrize(
    ("mode", "variable", "told"),
    [
        ("online", "offline", "set tracking.wandb to offline"),
        ("online", "dryrun", "set tracking.wandb to offline"),
        ("offline", "online", "set tracking.wandb to online"),
        ("offline", "disabled", "set tracking.wandb to off"),
        ("offline", "ofline", "expected online, offline, disabled"),
    ],
)
def test_a_mode_in_the_environment_that_contradicts_is_refused(
    mode, variable, told, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", variable)
    with pytest.raises(ConfigurationError, match=f"WANDB_MODE is .*{variable}.*{told}"):
        check_tracking(tmp_path, mode)
    check_tracking(tmp_path, "off")


@pytest.mark.parametrize(("mode", "variable"), [("offline", "dryrun"), ("online", "run")])
def test_old_names_of_the_same_mode_do_not_contradict(mode, variable, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", variable)
    check_tracking(tmp_path, mode)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("WANDB_RUN_ID", "abc", "unset WANDB_RUN_ID"),
        ("WANDB_RESUME_FROM", "abc?_step=3", "unset WANDB_RESUME_FROM"),
        ("WANDB_BASE_URL", "no address", "W&B cannot be started"),
    ],
)
def test_other_variables_that_wandb_would_stumble_over(
    variable, value, told, tmp_path, monkeypatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(NaktError, match=told) as refused:
        check_tracking(tmp_path, "offline")
    assert "\n" not in str(refused.value)


def test_the_agent_of_a_sweep_chooses_the_run(tmp_path, monkeypatch):
    started = []
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep7")
    monkeypatch.setattr(wandb, "init", lambda **given: started.append(given["id"]))
    tracked = TrackedRun(tmp_path, "run", {}, "offline", "project")
    for agents in ("agents1", "agents1", "agents2"):  # the last of another sweep
        monkeypatch.setenv("WANDB_RUN_ID", agents)
        check_tracking(tmp_path, "offline")
        start_wandb(tracked)
        assert (tmp_path / "wandb_run_id.txt").read_text() == agents
    assert started == ["agents1", "agents1", "agents2"]
    monkeypatch.delenv("WANDB_SWEEP_ID")
    with pytest.raises(ConfigurationError, match="unset WANDB_RUN_ID"):
        check_tracking(tmp_path, "offline")


def test_the_machine_is_measured_where_a_run_trains_and_not_where_it_is_mirrored(
    tmp_path, monkeypatch
):
    given = []
    monkeypatch.setattr(wandb, "init", lambda **words: given.append(words["settings"]))
    tracked = TrackedRun(tmp_path, "run", {}, "offline", "project")
    open_wandb(tracked, "live")
    open_wandb(tracked, "mirrored", mirrored=True)
    measured = [not (each.x_disable_stats or each.x_disable_machine_info) for each in given]
    assert measured == [True, False]


# -------------------------------------------------------------------------- files


@pytest.mark.parametrize("content", ["", "a/b", "a b", "#" * 8, "x" * 65])
def test_a_damaged_run_id_is_named(content, tmp_path):
    (tmp_path / "wandb_run_id.txt").write_text(content)
    with pytest.raises(NaktError, match=r"wandb_run_id\.txt: holds .*delete it"):
        check_tracking(tmp_path, "offline")


def test_what_stands_in_the_place_of_wandbs_files_is_named(tmp_path):
    (tmp_path / "wandb").write_text("")
    with pytest.raises(NaktError, match="wandb: is not a folder"):
        check_tracking(tmp_path, "offline")


# -------------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tracking.wandb=offline", "--tracking.project=team/project"], "tracking.project"),
        (["--tracking.wandb=online"], "no W&B API key"),
    ],
)
def test_training_ends_with_one_line_before_anything_is_built(
    more, told, dataset, tmp_path, capsys
):
    output = tmp_path / "out"
    assert main(["train", *words(dataset, output, *more)]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.startswith("nakt: error: ")
    assert message.count("\n") == 1
    assert not output.exists()


def test_doctor_foresees_it(dataset, tmp_path, capsys, monkeypatch):
    online = words(dataset, tmp_path / "out", "--tracking.wandb=online")
    assert main(["doctor", "train", *online]) == 1
    assert "W&B: tracking.wandb is online, and there is no W&B API key" in capsys.readouterr().out
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert main(["doctor", "train", *online, "--tracking.entity=team"]) == 0
    assert "online, project team/nakt_dist" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        wandb.errors.UsageError("Invalid\n  project"),
        wandb.errors.CommError("the server is not there"),
        ValueError("settings"),
        PermissionError(13, "Permission denied", "wandb"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_wandb_raises_at_its_start_is_one_line(
    error, dataset, tmp_path, capsys, monkeypatch
):
    def fail(**_):
        raise error

    monkeypatch.setattr(wandb, "init", fail)
    status = main(["train", *words(dataset, tmp_path / "out", "--tracking.wandb=offline")])
    message = capsys.readouterr().err.splitlines()[-1]
    assert status == 1
    assert message.startswith("nakt: error: W&B cannot be started (offline): ")
    assert message.endswith("set tracking.wandb to off")


def test_wandb_that_fails_later_is_told_once_and_the_training_goes_on(
    dataset, tmp_path, capsys, monkeypatch
):
    def fail(*_, **__):
        raise wandb.errors.CommError("the service has ended")

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", fail)
    output = tmp_path / "out"
    assert main(["train", *words(dataset, output, "--tracking.wandb=offline")]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "W&B" in line]
    assert len(said) == 1
    assert "the service has ended" in said[0]
    assert len((output / METRICS_NAME).read_text().splitlines()) >= 2


def test_wandb_that_fails_at_the_end_does_not_spoil_a_finished_training(
    dataset, tmp_path, capsys, monkeypatch
):
    finish, calls = wandb.Run.finish, []

    def fail_once(run, *_, **__):
        calls.append(run)
        if len(calls) == 1:
            raise OSError("disk quota exceeded")
        finish(run)

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.finish", fail_once)
    output = tmp_path / "out"
    assert main(["train", *words(dataset, output, "--tracking.wandb=offline")]) == 0
    assert "disk quota exceeded" in capsys.readouterr().err
    assert (output / "record.json").exists()
    assert len(calls) == 2
