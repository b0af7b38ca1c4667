"""``nakt doctor``: what a launch resolves to, and what is wrong, before an hour is spent."""

import contextlib
import fcntl
import importlib.machinery
import json
import os
import re
import shutil
import struct
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from nakt_dist.cli import main, parse_config
from nakt_dist.config import (
    DoctorConfig,
    ValidationConfig,
    as_plain,
)
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime import machine
from nakt_dist.runtime.barrier import Arrivals, Barrier
from nakt_dist.runtime.distributed import make_accelerator
from nakt_dist.runtime.launch_check import check_launch
from nakt_dist.runtime.machine import Machine, available_memory, is_locked
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.stages import doctor, evaluate, pack, teach, train
from nakt_dist.stages.doctor_report import Diagnosis, Findings, diagnose
from nakt_dist.stages.opening import in_words
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import rank_environments
from tests.recipes import evaluate_config, file_hashes, teach_config, train_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``squares``, a packed dataset with masks, and ``teacher.safetensors``."""
    folder = tmp_path_factory.mktemp("doctor")
    make_packed_dataset(folder, images=16, splits={"train": 0.75, "test": 0.25})
    make_weights(folder / "teacher.safetensors")
    return folder


def settings_file(path: Path, config: object) -> Path:
    path.write_text(yaml.safe_dump(as_plain(config), sort_keys=False))  # splits have an order
    return path


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, str], list[str]]:
    """Runs the doctor; returns its exit code, its facts and the problems it names."""
    capsys.readouterr()
    code = main(["doctor", *words])
    rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    problems = [words for name, words in rows if name == "problem"]
    return code, dict(rows), problems


def test_a_sound_training_is_described_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(
        tmp_path / "run", folder / "squares", {"global_batch_size": 8, "micro_batch_size": 2}
    )
    path = settings_file(tmp_path / "train.yaml", config)
    before = file_hashes(folder)
    code, facts, problems = ask(capsys, "train", "--config", str(path), "--workers", "2")
    assert (code, problems) == (0, [])
    assert facts["problems"] == "none"
    assert facts["processes"] == "1 on 1 host"
    assert facts["global batch"] == "8 = micro-batch 2 × accumulation 4 × 1 process"
    assert facts["data"].startswith("12 of 16 samples of squares, split train; 32×32×1; masks")
    assert facts["steps"] == "6, 1 in an epoch of 12 images"
    assert (facts["precision"], facts["DeepSpeed"]) == ("float32, channels last", "not used")
    assert facts["network"].startswith("unet, ")
    assert facts["output"] == f"{tmp_path / 'run'}: new"
    assert re.fullmatch(r".* left at .*, train writes about [\d.]+ [KM]iB", facts["disk"])
    assert "torch" in facts["versions"] and facts["file locks"] == "work"
    assert [each.name for each in tmp_path.iterdir()] == ["train.yaml"]
    assert file_hashes(folder) == before


def test_every_mistake_is_told_at_once_with_what_to_do(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = train_config(
        tmp_path / "run",
        folder / "squares",
        {"global_batch_size": 9, "micro_batch_size": 2, "precision": "fp16"},
        {"splits": ["trian"]},
        init=str(folder / "absent.safetensors"),
    )
    path = settings_file(tmp_path / "train.yaml", config)
    code, facts, problems = ask(capsys, "train", "--config", str(path))
    assert code == 1
    told = "\n".join(problems)
    for words in ("did you mean 'train'", "absent.safetensors", "not a multiple", "needs a GPU"):
        assert words in told
    assert "recipe.precision decides" in facts["note"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--recipe.stepps", "3"], "did you mean 'recipe.steps'"),
        (["trian"], "did you mean 'train'"),
        (["pack", "--layout=busi", "--source=absent", "--output=out"], "absent"),
        (["verify", "absent"], "no manifest here"),
        (["report", "absent"], "is no folder"),
    ],
)
def test_any_stage_can_be_asked_about(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, problems = ask(capsys, *words)
    assert code == 1 and told in problems[0]


def test_without_a_stage_the_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    code, facts, _ = ask(capsys)
    assert code == 0
    assert {"stage", "processes", "device", "memory", "versions"} <= set(facts)


def test_own_settings_stand_before_the_stage_and_all_others_behind_it() -> None:
    config = parse_config("doctor", ["--wait_seconds=5", "pack", "--count", "3", "--labels={}"])
    assert config == DoctorConfig("pack", ["--count", "3", "--labels={}"], 5.0)
    assert parse_config("doctor", ["pack", "--", "--count=3"]).settings == ["--count=3"]
    with pytest.raises(ConfigurationError, match="did you mean 'wait_seconds'"):
        parse_config("doctor", ["--wait_second=5"])


def test_teaching_evaluating_and_packing_name_what_they_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, dataset = folder / "teacher.safetensors", folder / "squares"
    for config in (
        teach_config(tmp_path / "pseudo", dataset, weights),
        evaluate_config(tmp_path / "test", dataset, weights),
    ):
        stage = type(config).__name__.removesuffix("Config").lower()
        path = settings_file(tmp_path / "config.yaml", config)
        code, facts, problems = ask(capsys, stage, "--config", str(path))
        assert (code, problems) == (0, []), problems
        assert "16 of 16 samples of squares" in facts["data"]
        assert "teacher" in facts["teacher 1" if stage == "teach" else "weights"]
    source = folder / "squares-published"
    words = ["--layout=image_folder", f"--source={source}", f"--output={tmp_path / 'out'}"]
    key = tmp_path / "some.key"
    code, facts, _ = ask(capsys, "pack", *words, "--deidentify", f"--deidentify_key={key}")
    assert code == 0 and facts["source"].startswith("16 inputs of layout image_folder")
    assert facts["key"] == f"{key} (will be made)" and not key.exists()
    inside = ["--layout=image_folder", f"--source={source}", f"--output={source / 'out'}"]
    code, _, problems = ask(capsys, "pack", *inside)
    assert code == 1 and "lies in the source" in problems[0]


def test_shards_that_are_not_whole_are_noticed_without_reading_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_packed_dataset(tmp_path)
    (dataset / "train-000000.tar").unlink()
    with (dataset / "train-000001.tar").open("ab") as stream:
        stream.write(b"more")
    path = settings_file(tmp_path / "train.yaml", train_config(tmp_path / "run", dataset))
    code, _, problems = ask(capsys, "train", "--config", str(path))
    assert code == 1 and "2 of 4 shards are absent or of another size" in problems[0]


def test_the_output_is_new_unfinished_finished_locked_or_another_stages(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(tmp_path / "run", folder / "squares", {"steps": 2})
    path = settings_file(tmp_path / "train.yaml", config)

    def state() -> tuple[int, str, list[str]]:
        code, facts, problems = ask(capsys, "train", "--config", str(path))
        return code, facts["output"].rsplit(": ", 1)[1], problems

    assert state()[:2] == (0, "new")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert state()[:2] == (0, "unfinished; the same settings go on with it")
    (tmp_path / "run" / "checkpoints").rmdir()
    train.run(config)
    assert state()[:2] == (0, "finished; the same settings do nothing more")
    lock = tmp_path / "run" / ".lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        code, _, problems = state()
        assert code == 1 and "another train is writing here right now" in problems[0]
    assert not is_locked(lock) and state()[0] == 0
    (tmp_path / "run" / "predictions.parquet").write_text("")
    code, _, problems = state()
    assert code == 1 and "what evaluate has written" in problems[0]


def agrees_with_the_stage(
    capsys: pytest.CaptureFixture[str], folder: Path, config: object, told: str | None
) -> None:
    """Asks the doctor, which must say what the stage will, once, and change no file."""
    stage = type(config).__name__.removesuffix("Config").lower()
    path = settings_file(folder / "settings.yaml", config)
    before = file_hashes(folder)
    code, _, problems = ask(capsys, stage, "--config", str(path))
    assert file_hashes(folder) == before
    if told is None:
        assert (code, problems) == (0, [])
        return
    with pytest.raises(NaktError, match=told) as refusal:
        {"pack": pack, "teach": teach, "train": train, "evaluate": evaluate}[stage].run(config)
    assert problems == [f"output: {refusal.value}"]


def test_an_output_that_a_stage_would_refuse_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, weights = folder / "squares", folder / "teacher.safetensors"
    pseudo = teach_config(tmp_path / "pseudo", dataset, weights)
    teach.run(pseudo)
    agrees_with_the_stage(capsys, tmp_path, pseudo, None)
    other = replace(pseudo, batch_size=5)
    agrees_with_the_stage(capsys, tmp_path, other, "already holds other pseudo-labels")
    test = evaluate_config(tmp_path / "test", dataset, weights)
    evaluate.run(test)
    agrees_with_the_stage(capsys, tmp_path, test, None)
    agrees_with_the_stage(capsys, tmp_path, replace(test, overlays=2), None)
    other = replace(test, splits=["test"])
    agrees_with_the_stage(capsys, tmp_path, other, "already holds another evaluation")
    shutil.copytree(dataset, tmp_path / "packed")
    words = ["--config", str(dataset / "config.yaml"), f"--source={folder / 'squares-published'}"]
    packing = parse_config("pack", [*words, f"--output={tmp_path / 'packed'}", "--workers=1"])
    agrees_with_the_stage(capsys, tmp_path, packing, None)
    other = replace(packing, seed=3)
    agrees_with_the_stage(capsys, tmp_path, other, "already holds a dataset packed otherwise")


@pytest.mark.parametrize("stage", ["pack", "teach", "evaluate"])
def test_work_that_was_begun_with_other_settings_is_told(
    stage: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, weights, output = folder / "squares", folder / "teacher.safetensors", tmp_path / "out"
    words = ["--config", str(dataset / "config.yaml"), f"--source={folder / 'squares-published'}"]
    config = {
        "pack": parse_config("pack", [*words, f"--output={output}", "--workers=1"]),
        "teach": teach_config(output, dataset, weights),
        "evaluate": evaluate_config(output, dataset, weights),
    }[stage]
    WorkLedger(output / f".{stage}", {"seed": 3}, 1).open()
    agrees_with_the_stage(capsys, tmp_path, config, "unfinished job with other settings")


def test_another_training_in_the_output_is_told_be_it_finished_or_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(tmp_path / "run", folder / "squares", {"steps": 2})
    train.run(config)
    other = replace(config, recipe=replace(config.recipe, learning_rate=0.5))
    told = "other settings or data .settings.recipe.learning_rate"
    agrees_with_the_stage(capsys, tmp_path, other, told)
    (tmp_path / "run" / "record.json").unlink()
    agrees_with_the_stage(capsys, tmp_path, other, told)
    fewer = replace(config, trainable=["head"])
    agrees_with_the_stage(capsys, tmp_path, fewer, "lineage.trainable.parameters")
    agrees_with_the_stage(capsys, tmp_path, config, None)
    further = replace(config, output=str(tmp_path / "on"), init=str(tmp_path / "run"), model=None)
    train.run(further)
    agrees_with_the_stage(capsys, tmp_path, further, None)


def test_what_a_dataset_would_be_without_its_key_is_not_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "squares", tmp_path / "packed")
    words = ["--layout=image_folder", f"--source={folder / 'squares-published'}", "--deidentify"]
    key = tmp_path / "some.key"
    words += [f"--output={tmp_path / 'packed'}", f"--deidentify_key={key}"]
    code, _, problems = ask(capsys, "pack", *words)
    assert (code, problems) == (0, []) and not key.exists()


def test_a_disk_and_a_memory_that_are_too_small_are_told(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = train_config(tmp_path / "run", folder / "squares", memory_cache_megabytes=1)
    path = settings_file(tmp_path / "train.yaml", config)
    monkeypatch.setattr("nakt_dist.stages.doctor.free_bytes", lambda folder: 1000)
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    code, _, problems = ask(capsys, "train", "--config", str(path))
    assert code == 1
    assert [each.split(":")[0] for each in problems] == ["disk", "memory"]
    assert "choose another --output" in problems[0] and "memory_cache" in problems[1]


@pytest.mark.parametrize("stage", ["pack", "teach"])
def test_what_small_images_take_besides_their_pixels_is_counted(
    stage: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, output = folder / "squares", tmp_path / "out"
    words = ["--config", str(dataset / "config.yaml"), f"--source={folder / 'squares-published'}"]
    config = {
        "pack": parse_config("pack", [*words, f"--output={output}", "--workers=1"]),
        "teach": teach_config(output, dataset, folder / "teacher.safetensors"),
    }[stage]
    path = settings_file(tmp_path / "settings.yaml", config)
    found = doctor.examine(DoctorConfig(stage, ["--config", str(path)]))
    {"pack": pack, "teach": teach}[stage].run(config)
    written = sum(each.stat().st_size for each in output.iterdir())
    assert written < found.disk < 3 * written
    monkeypatch.setattr("nakt_dist.stages.doctor.free_bytes", lambda folder: 1.05 * found.disk)
    code, _, problems = ask(capsys, stage, "--config", str(path))
    assert code == 1 and problems[0].startswith("disk: ")
    monkeypatch.setattr("nakt_dist.stages.doctor.free_bytes", lambda folder: 1.15 * found.disk)
    assert ask(capsys, stage, "--config", str(path))[0] == 0


def test_pseudo_labels_of_a_gpu_are_no_problem_where_there_is_none(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = teach_config(tmp_path / "out", folder / "squares", folder / "teacher.safetensors")
    teach.run(config)
    elsewhere = torch.device("cuda")
    monkeypatch.setattr("nakt_dist.stages.teach.choose_device", lambda *_: elsewhere)
    for device, problems_expected in (("auto", 0), ("cpu", 1)):
        path = settings_file(tmp_path / "settings.yaml", replace(config, device=device))
        _, facts, problems = ask(capsys, "teach", "--config", str(path))
        assert len(problems) == problems_expected
        assert ("start it where they began" in facts.get("note", "")) == (not problems)


def test_what_is_not_nothing_is_not_told_as_nothing() -> None:
    sizes = (0, 1, 1025, 2**20, 14 * 2**20, 3 * 2**30)
    told = ["0 KiB", "1 KiB", "2 KiB", "1.0 MiB", "14 MiB", "3.0 GiB"]
    assert [in_words(size) for size in sizes] == told


def launched(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """Sets what a launcher would, on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def of_deepspeed(stage: str) -> dict[str, str]:
    variables = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
    return {"RANK": "0", **variables}


def test_deepspeed_is_told_as_accelerate_asks_for_it(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched(monkeypatch, **of_deepspeed("3"))
    package = types.ModuleType("deepspeed")
    package.__spec__ = importlib.machinery.ModuleSpec("deepspeed", None)
    package.ops = types.SimpleNamespace(__compatible_ops__={})
    monkeypatch.setitem(sys.modules, "deepspeed", package)
    config = train_config(tmp_path / "run", folder / "squares")
    path = settings_file(tmp_path / "train.yaml", config)
    code, facts, problems = ask(capsys, "train", "--config", str(path))
    assert (code, problems, facts["DeepSpeed"]) == (0, [], "ZeRO stage 3")
    other = tmp_path / "deepspeed.json"
    other.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(other))
    assert ask(capsys, "train", "--config", str(path))[1]["DeepSpeed"] == "ZeRO stage 1"
    other.write_text("{}")
    assert "cannot be read" in ask(capsys, "train", "--config", str(path))[2][0]
    monkeypatch.delenv("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    code, _, problems = ask(capsys, "train", "--config", str(path))
    assert code == 1 and "nakt_dist[deepspeed]" in problems[0]


@pytest.mark.parametrize(
    ("environment", "precision", "gpus", "told"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "no", False, "FSDP was asked for"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "no", False, "Megatron was asked for"),
        (of_deepspeed("0"), "no", False, "zero_stage is 0, expected 1, 2 or 3"),
        (of_deepspeed("2"), "no", True, "device is cpu, but DeepSpeed would take the GPU"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "no", False, "no launcher started this process"),
        ({}, "fp16", False, "fp16, which needs a GPU"),
    ],
)
def test_a_launch_that_train_refuses_is_refused_alike(
    environment: dict[str, str],
    precision: str,
    gpus: bool,
    told: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched(monkeypatch, **environment)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    config = train_config(tmp_path / "run", folder / "squares", {"precision": precision})
    path = settings_file(tmp_path / "train.yaml", config)
    (problem,) = doctor.examine(DoctorConfig("train", ["--config", str(path)])).problems
    with pytest.raises(ConfigurationError) as refusal:
        make_accelerator(precision, "cpu")
    assert told in problem and problem == f"launch: {refusal.value}"


def test_a_gpu_without_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    for supported in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, s=supported: s or including_emulation,
        )
        with (
            contextlib.nullcontext()
            if supported
            else pytest.raises(ConfigurationError, match="bf16, which this GPU does not have")
        ):
            assert check_launch("bf16", "auto") is None


def test_data_hidden_with_different_keys_are_not_compared_in_silence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config(
        "pack", ["--config", str(folder / "squares" / "config.yaml"), "--output=x"]
    )
    hidden = replace(config, output=str(tmp_path / "hidden"), workers=1, deidentify=True)
    pack.run(replace(hidden, deidentify_key=str(tmp_path / "some.key")))
    validation = ValidationConfig(dataset=str(tmp_path / "hidden"), splits=["test"])
    config = train_config(tmp_path / "run", folder / "squares", validation=validation)
    path = settings_file(tmp_path / "train.yaml", config)
    code, facts, _ = ask(capsys, "train", "--config", str(path))
    assert code == 0 and "were not de-identified with one key" in facts["note"]


def a_machine(host: str = "n1", gpu: str = "", memory: int = 10**9) -> Machine:
    return Machine(host, 4, 4, gpu or "cpu", gpu, "nccl" if gpu else "gloo", memory)


def of_ranks(*found: Findings | None, faults: dict[int, str] | None = None) -> Diagnosis:
    texts = [None if each is None else json.dumps(each.as_plain()) for each in found]
    return diagnose("train", Arrivals(texts, faults or {}, 0.1))


def test_processes_that_differ_are_told_apart_by_rank_and_host() -> None:
    one = Findings(0, a_machine(), inputs={"data": "aaaa"}, versions={"torch": "2.6"})
    two = Findings(1, a_machine("n2"), inputs={"data": "bbbb"}, versions={"torch": "2.7"})
    problems = of_ranks(one, two).problems
    assert (
        "data differs between processes (aaaa: process 0 on n1; bbbb: process 1 on n2)"
        in (problems[0])
    )
    assert "torch differs" in problems[1]
    assert of_ranks(one, replace(two, inputs=one.inputs, versions=one.versions)).problems == ()


def test_a_gpu_that_two_processes_take_is_told() -> None:
    found = [Findings(rank, a_machine(gpu="GPU-7")) for rank in (0, 1)]
    (problem,) = of_ranks(*found).problems
    assert "processes 0, 1 share one GPU of n1" in problem
    assert of_ranks(found[0], Findings(1, a_machine("n2", gpu="GPU-7"))).problems == ()


def test_the_memory_of_all_processes_of_a_host_counts() -> None:
    found = [Findings(rank, a_machine(), memory=600_000_000) for rank in (0, 1)]
    (problem,) = of_ranks(*found).problems
    assert problem.startswith("memory: images take about 1.1 GiB in processes 0, 1 on n1")
    assert of_ranks(found[0]).problems == ()


def test_processes_that_did_not_come_or_cannot_pass_data_are_named() -> None:
    found = Findings(0, a_machine(), problems=["a problem"])
    (own, absent) = of_ranks(found, None, None).problems
    assert own == "a problem" and "nothing came from processes 1, 2 of 3" in absent
    (problem,) = of_ranks(replace(found, problems=[]), faults={0: "refused"}).problems
    assert "refused; data does not pass" in problem


@pytest.mark.distributed
def test_all_processes_of_a_launch_report_and_the_first_prints_one_table(
    folder: Path, tmp_path: Path
) -> None:
    config = train_config(tmp_path / "run", folder / "squares")
    path = settings_file(tmp_path / "train.yaml", config)
    words = ["doctor", "--wait_seconds=60", "train", "--config", str(path)]
    with ForkedLaunch(words, 2, tmp_path / "log", stop_together=False) as started:
        started.finish(240)
    printed = started.printed
    assert started.statuses() == {"rank 0": 0, "rank 1": 0}, printed
    assert (
        len(re.findall(r"^global batch +8 = micro-batch 4 × accumulation 1 × 2", printed, re.M))
        == 1
    )
    assert re.search(r"^backend +gloo \(all met over gloo in", printed, re.M)
    assert re.search(r"^process 0 .*\n^process 1 ", printed, re.M)
    assert not (tmp_path / "run").exists()


@pytest.mark.distributed
def test_a_process_that_is_missing_is_named_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    for rank, told in (
        (0, "nothing came from processes 1, 2 of 3 within the time"),
        (1, "process 1 of 3 and process 0 do not meet at 127.0.0.1:"),
    ):
        words = ["doctor", "--wait_seconds=2"]
        with ForkedLaunch(words, 3, tmp_path / f"{rank}", False, only=rank) as started:
            started.finish(120)
        assert started.statuses() == {f"rank {rank}": 1}
        assert told in started.printed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_told_by_name_and_what_is_free_of_it() -> None:
    found = machine.look_around("auto", None)
    assert re.fullmatch(r"cuda:0 .+ \([\d.]+ of [\d.]+ GiB free\)", found.device)
    assert found.gpu and found.backend == "nccl"


def test_a_stage_of_one_process_is_not_started_as_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    monkeypatch.setitem(os.environ, "RANK", "0")
    (problem,) = doctor.examine(DoctorConfig("report", [str(tmp_path)])).problems
    assert "processes: report runs as one process, and 2 were to share it" in problem


def test_over_how_many_images_batchnorm_takes_its_statistics(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29500"}
    for name, value in {**place, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    words = [
        f"--data.dataset={folder / 'squares'}", f"--output={tmp_path / 'out'}", "--model.name=unet",
        "--recipe.steps=1", "--recipe.global_batch_size=4", "--device=cpu",
        '--model.options={"base_channels": 4}',
    ]  # fmt: skip
    found = doctor.examine(DoctorConfig("train", words))
    assert found.facts["BatchNorm"].startswith("statistics of the 2 images of each process")
    words.append("--recipe.synchronised_batch_norm=true")
    found = doctor.examine(DoctorConfig("train", words))
    assert found.facts["BatchNorm"] == "statistics of 4 images of all processes together"


def test_of_a_study_the_chosen_runs_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"stage": "report", "config": {"runs": [str(tmp_path)], "output": str(tmp_path / "to")}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"root": str(tmp_path), "steps": [step, step]}))
    words = ["--config", str(path), "--only"]
    assert ask(capsys, "study", *words, "[to-2]")[1]["runs"] == "1: report"
    code, _, problems = ask(capsys, "study", *words, "[to-3]")
    assert code == 1 and "the study has no run 'to-3', did you mean" in problems[0]
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    (problem,) = doctor.examine(DoctorConfig("study", [*words, "[to-2]"])).problems
    assert "report runs as one process" in problem


def test_a_packing_that_would_give_patients_away_is_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = folder / "squares-published"
    words = ["pack", "--layout=image_folder", f"--source={source}", f"--output={tmp_path / 'out'}"]
    code, _, problems = ask(capsys, *words, "--deidentify", f"--deidentify_key={source / 'a.key'}")
    assert code == 1 and "with which it would be passed on" in problems[0]
    key = tmp_path / "some.key"
    key.write_text("0" * 64)
    key.chmod(0o644)
    code, _, problems = ask(capsys, *words, "--deidentify", f"--deidentify_key={key}")
    assert code == 1 and "chmod 600" in problems[0]
    key.chmod(0o600)
    code, facts, problems = ask(capsys, *words, "--deidentify", f"--deidentify_key={key}")
    assert (code, problems) == (0, []) and facts["source"].startswith("16 inputs")
    monkeypatch.setenv("HOME", str(tmp_path))
    _, facts, _ = ask(capsys, *words, "--deidentify", "--deidentify_key=~/some.key")
    assert facts["key"] == f"{key} (is there)"


def test_an_evaluation_that_another_one_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, dataset = folder / "teacher.safetensors", folder / "squares"
    config = evaluate_config(
        tmp_path / "test", dataset, weights, teacher_record=str(tmp_path / "absent.json")
    )
    path = settings_file(tmp_path / "evaluate.yaml", config)
    code, _, problems = ask(capsys, "evaluate", "--config", str(path))
    assert code == 1 and problems[0].startswith("evaluate: ") and "absent.json" in problems[0]


def test_images_without_masks_are_told_of_evaluate_and_of_train(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_packed_dataset(tmp_path, images=16, with_masks=False)
    for stage, config in (
        ("evaluate", evaluate_config(tmp_path / "out", dataset, folder / "teacher.safetensors")),
        ("train", train_config(tmp_path / "out", dataset)),
    ):
        path = settings_file(tmp_path / "settings.yaml", config)
        code, _, (problem,) = ask(capsys, stage, "--config", str(path))
        assert code == 1 and problem.startswith(f"{stage}: ") and "have no mask" in problem


def test_pseudo_labels_of_another_dataset_are_told_of_inspect(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo = make_pseudo_labels(tmp_path, folder / "squares")
    other = make_packed_dataset(tmp_path, name="circles")
    words = ["inspect", str(pseudo), f"--output={tmp_path / 'out'}"]
    assert ask(capsys, *words, f"--dataset={folder / 'squares'}")[0] == 0
    code, _, problems = ask(capsys, *words, f"--dataset={other}")
    assert code == 1 and "pseudo-labels of dataset 'squares', not of 'circles'" in problems[0]
    code, _, problems = ask(capsys, *words, f"--dataset={tmp_path / 'absent'}")
    assert code == 1 and "absent" in problems[0]
    code, _, problems = ask(capsys, "inspect", str(other), f"--dataset={other}")
    assert code == 1 and "is a packed dataset, which has no masks to exclude" in problems[0]


def test_a_job_is_looked_at_before_it_is_submitted_and_its_data_by_asking_about_the_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = ["submit", "train", "--nodes=2", "--tasks-per-node=4", "--", "--output=out"]
    job += ["--data.dataset=absent", "--recipe.steps=5"]
    code, facts, problems = ask(capsys, *job, "--recipe.global_batch_size=16")
    assert (code, problems) == (0, [])
    assert facts["job"] == "train on 2 nodes, 4 tasks on each"
    assert "nakt doctor train --output=out --data.dataset=absent" in facts["note"]
    code, _, problems = ask(capsys, *job, "--recipe.global_batch_size=4")
    assert code == 1 and problems[0].startswith("job: recipe.global_batch_size 4 is not a multiple")
    code, _, problems = ask(capsys, *job, "--recipe.stepz=4")
    assert code == 1 and "did you mean 'recipe.steps'" in problems[0]


def test_a_stage_that_starts_anew_is_not_called_finished(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = folder / "teacher.safetensors"
    output = tmp_path / "attention"
    output.mkdir()
    for name in ("attention.parquet", "record.json"):
        (output / name).touch()
    _, facts, _ = ask(
        capsys, "attention", f"--student.weights={weights}", f"--teacher.weights={weights}",
        f"--dataset={folder / 'squares'}", f"--output={output}",
    )  # fmt: skip
    assert facts["output"].endswith("written before; the stage does all of it again")


def test_decoded_images_are_kept_once_for_a_machine_and_within_their_limit(
    folder: Path, tmp_path: Path
) -> None:
    validation = ValidationConfig(dataset=str(folder / "squares"), splits=["test"])
    config = train_config(
        tmp_path / "run", folder / "squares", validation=validation, memory_cache_megabytes=1
    )
    path = settings_file(tmp_path / "train.yaml", config)
    found = doctor.examine(DoctorConfig("train", ["--config", str(path)]))
    assert found.problems == []
    image = 2 * 32 * 32  # with its mask
    assert found.memory == (12 + 4) * image


def test_the_limits_of_the_own_control_group_and_of_those_above_it_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/elsewhere\n0::/slurm/job_7/step_0\n")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", own)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    for name, limit in (("slurm", "max"), ("slurm/job_7", "9000"), ("slurm/job_7/step_0", "max")):
        group = tmp_path / name
        group.mkdir()
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("8000\n")
        (group / "memory.stat").write_text("anon 5000\ninactive_file 2500\n")
    assert available_memory() == 9000 - 8000 + 2500
    own.write_text("0::/\n")
    assert available_memory() > 10**6


def test_to_ask_for_a_lock_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / ".lock"
    assert not is_locked(lock)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("takes the lock itself"))
        assert is_locked(lock)
    assert not is_locked(lock)


def test_a_lock_on_a_range_of_bytes_is_noticed_as_file_servers_keep_them(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with lock.open("w") as stream:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(stream, fcntl.F_OFD_SETLK, whole)
        assert is_locked(lock)
    assert not is_locked(lock)


def launched_as(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_the_first_process_is_found_while_it_still_examines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = rank_environments(2)
    came = []

    def slow_examination(config: DoctorConfig) -> Findings:
        launched_as(monkeypatch, second)
        came.append(Barrier(5.0))
        launched_as(monkeypatch, first)
        return Findings(0, a_machine())

    launched_as(monkeypatch, first)
    monkeypatch.setattr(doctor, "examine", slow_examination)
    with pytest.raises(NaktError, match="1 problem"):  # the other one tells nothing
        doctor.run(DoctorConfig(wait_seconds=0.5))
    assert came


def test_the_others_wait_for_a_first_process_that_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places, left = [], []
    for environment in rank_environments(3)[:2]:
        launched_as(monkeypatch, environment)
        places.append(Barrier(1.0))
    other = threading.Thread(target=lambda: left.append(places[1].gather("one")), daemon=True)
    other.start()
    time.sleep(3)
    met = places[0].gather("zero")
    other.join(30)
    assert met.texts == ["zero", "one", None] and left == [Arrivals([], {}, 0.0)]


def test_the_backend_is_not_said_to_work_when_it_was_not_tried() -> None:
    gpus = [Findings(rank, a_machine(gpu=f"GPU-{rank}")) for rank in (0, 1)]
    told = of_ranks(*gpus).facts["backend"]
    assert told == "nccl (itself not tried; all met over gloo in 0.1 s)"
    assert of_ranks(gpus[0], None).facts["backend"] == "nccl (itself not tried; not all met)"
