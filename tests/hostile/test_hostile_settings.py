"""Settings that run, repeat, nest or never end, and addresses that are commands."""

import os
import sys
from pathlib import Path

import pytest

from nakt_dist.cli import main, parse_config
from nakt_dist.config import CONFIG_NAME, PackConfig, save_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.limits import LARGEST_SEED
from nakt_dist.loading import batches
from nakt_dist.loading.samples import select_samples
from nakt_dist.models.building import build_configured
from nakt_dist.models.spec import ModelSpec
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.sources.cards import load_card
from tests.datasets import make_packed_dataset

pytestmark = pytest.mark.faults

BASE = "output: o\ndata: {dataset: d}\nrecipe: {steps: 1}\n"


def laughs(levels: int) -> str:
    """Returns ten values, ten times ten, and so on: a few lines that stand for 10 ** levels."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "{" + ", ".join(lines) + "}"


REFUSED = {
    "object": "model: {options: !!python/object/apply:os.mkdir [mark]}",
    "new_object": "model: {options: !!python/object/new:os.mkdir [mark]}",
    "module": "model: {options: {a: !!python/module:planted}}",
    "name": "model: {options: {a: !!python/name:os.system}}",
    "unknown_tag": "seed: !include /etc/passwd",
    "laughs": f"model: {{options: {laughs(12)}}}",
    "laughs_by_merging": "model: {options: &a {x: 1}}\n"
    + "\n".join(f"k{n}: &k{n} {{a: *k{n - 1}, b: *k{n - 1}}}" for n in range(1, 40)).replace(
        "*k0", "*a"
    ),
    "alias_in_itself": "model: {options: {a: &a [*a]}}",
    "alias_in_its_own_mapping": "model: &a {options: *a}",
    "alias_of_nothing": "model: {options: *nobody}",
    "deep_lists": f"model: {{options: {{a: {'[' * 100_000}{']' * 100_000}}}}}",
    "deep_mappings": f"model: {{options: {'{a: ' * 100_000}1{'}' * 100_000}}}",
    "deep_by_indentation": "model:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 200)),
    "many_values": f"model: {{options: {{a: [{'1, ' * 300_000}]}}}}",
    "setting_twice": "seed: 1\nseed: 2",
    "setting_twice_inside": "checkpoint: {keep: 1, keep: 2}",
    "two_documents": "---\nseed: 1",
    "list": "- seed",
    "nul": "seed: \0",
    "tab": "\tseed: 1",
    "unknown": "class_path: os.system",
}


def refused(words: list[str], stage: str = "train") -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(stage, words)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_hostile_settings_file_is_refused_and_nothing_runs(tmp_path, monkeypatch, text):
    (tmp_path / "planted.py").write_text("open('mark', 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(BASE + text + "\n")
    refused([f"--config={path}"])
    refused(["--config", str(path)])
    assert not (tmp_path / "mark").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["laughs", "alias_in_itself", "deep_lists", "deep_mappings"])
def test_a_hostile_value_of_a_command_line_is_refused(name):
    value = REFUSED[name].removeprefix("model: {options: ").removesuffix("}")
    refused(["--output=o", "--data.dataset=d", "--recipe.steps=1", f"--model.options={value}"])


def test_the_setting_that_stands_there_twice_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(BASE + "seed: 1\nseed: 2\n")
    assert "the setting 'seed' stands there twice" in refused([f"--config={path}"])


def test_anchors_that_settings_files_use_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    text = "output: o\ndata: &d {dataset: d, splits: [a]}\nrecipe: {steps: 1}\n"
    path.write_text(text + "validation: {<<: *d, splits: [b]}\n")
    config = parse_config("train", [f"--config={path}"])
    assert (config.validation.dataset, config.validation.splits) == ("d", ["b"])


def test_settings_that_list_the_patients_of_a_large_dataset_are_read_again(tmp_path):
    patients = [f"patient{number:05d}" for number in range(40_000)]
    options = {"filters": {"patient": patients}}
    config = PackConfig(layout="images_csv", source="s", output="o", layout_options=options)
    save_config(config, tmp_path)
    read = parse_config("pack", [f"--config={tmp_path / CONFIG_NAME}"])
    assert read.layout_options == options


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "fifty_gigabytes", "standard_input"])
def test_what_is_no_plain_settings_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "config.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifty_gigabytes":
        path.touch()
        os.truncate(path, 50 * 2**30)
    names = {"device": Path("/dev/zero"), "standard_input": Path("-")}
    path = names.get(kind, path)
    assert str(path) in refused([f"--config={path}"])


def test_a_settings_file_below_the_home_folder_is_checked_and_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text(BASE + "seed: 7\n")
    assert parse_config("train", ["--config=~/config.yaml"]).seed == 7
    path.write_text(BASE + "seed: 7\nseed: 8\n")
    assert "stands there twice" in refused(["--config=~/config.yaml"])


def test_bytes_of_the_shell_that_are_no_text_are_refused():
    assert "not UTF-8" in refused(["--output=a\udcff", "--data.dataset=d", "--recipe.steps=1"])


@pytest.mark.parametrize("name", ["laughs", "alias_in_itself", "deep_lists", "object", "list"])
@pytest.mark.timeout(60)
def test_a_hostile_card_is_refused(tmp_path, name):
    (tmp_path / "card.yaml").write_text("title: " + REFUSED[name].replace("model: ", "", 1))
    with pytest.raises(ConfigurationError) as caught:
        load_card(tmp_path / "card.yaml", tmp_path)
    assert len(str(caught.value)) < 2000


HUGE = 10**26
ANYTHING = {
    "train": ["--output=o", "--data.dataset=d", "--recipe.steps=1"],
    "teach": ["--dataset=d", "--output=o", "--teachers=[{weights: w}]"],
    "evaluate": ["--weights=w", "--dataset=d", "--output=o"],
    "pack": ["--layout=busi", "--source=s", "--output=o"],
    "verify": ["folder"],
    "inspect": ["pseudo"],
    "attention": ["--student.weights=s", "--teacher.weights=t", "--dataset=d", "--output=o"],
    "phantoms": ["--kind=thyroid_ultrasound", "--output=o"],
    "report": ["run"],
    "doctor": [],
}
OUT_OF_RANGE = [
    ("train", "data.splits", "[]"),
    ("train", "data.count", "0"),
    ("train", "data.subset_seed", "-1"),
    ("train", "data.shuffle_buffer", "-1"),
    ("train", "seed", str(HUGE)),
    ("train", "seed", str(2**63)),
    ("train", "threads", "999999999999"),
    ("train", "workers", "100000"),
    ("train", "memory_cache_megabytes", "-1"),
    ("train", "preprocessing.height", "-1"),
    ("train", "preprocessing.width", "0"),
    ("train", "preprocessing.width", "1000000"),
    ("train", "preprocessing.mean", ".nan"),
    ("train", "preprocessing.mean", "[0.5, .inf]"),
    ("train", "preprocessing.std", ".inf"),
    ("train", "preprocessing.std", "[1, .nan]"),
    ("train", "recipe.learning_rate", ".inf"),
    ("train", "recipe.learning_rate", "1e300"),
    ("train", "recipe.learning_rate", ".nan"),
    ("train", "recipe.dice_weight", "-1"),
    ("train", "recipe.dice_weight", ".nan"),
    ("train", "recipe.cross_entropy_weight", ".inf"),
    ("train", "recipe.largest_gradient_norm", "0"),
    ("train", "recipe.largest_gradient_norm", "-1"),
    ("train", "recipe.largest_gradient_norm", ".nan"),
    ("train", "recipe.schedule.decay_factor", ".nan"),
    ("train", "recipe.schedule.warm_up_steps", "-1"),
    ("train", "recipe.optimiser.weight_decay", ".inf"),
    ("train", "recipe.ema_decay", ".nan"),
    ("train", "recipe.loss", "{name: focal, gamma: .nan}"),
    ("train", "augmentation.gamma", "[1, .inf]"),
    ("train", "augmentation.gamma", "[.nan, 1]"),
    ("train", "augmentation.contrast", "[0, .inf]"),
    ("train", "augmentation.contrast", "[0, .nan]"),
    ("train", "augmentation.largest_rotation", ".inf"),
    ("train", "augmentation.largest_rotation", "-1"),
    ("train", "augmentation.smallest_crop", ".nan"),
    ("train", "watchdog_seconds", ".inf"),
    ("train", "checkpoint.keep", "0"),
    ("train", "profile.steps", "0"),
    ("train", "profile.steps", "51"),
    ("train", "profile.after", "0"),
    ("teach", "threads", "100000"),
    ("evaluate", "splits", "[]"),
    ("evaluate", "seed", str(HUGE)),
    ("evaluate", "threshold", ".nan"),
    ("evaluate", "overlays", "-1"),
    ("evaluate", "bootstrap_samples", str(HUGE)),
    ("pack", "image.height", "1000000"),
    ("pack", "image.max_pixels", "0"),
    ("pack", "workers", "100000"),
    ("pack", "seed", str(HUGE)),
    ("verify", "workers", "0"),
    ("inspect", "exclusion.alpha", ".nan"),
    ("inspect", "exclusion.beta", "-1"),
    ("inspect", "images", "-1"),
    ("inspect", "seed", "-1"),
    ("attention", "splits", "[]"),
    ("attention", "seed", str(HUGE)),
    ("doctor", "wait_seconds", ".inf"),
]


@pytest.mark.parametrize(("stage", "name", "value"), OUT_OF_RANGE)
def test_a_setting_of_which_nothing_can_come_is_refused_by_its_name(stage, name, value):
    message = refused([*ANYTHING[stage], f"--{name}={value}"], stage)
    assert name in message and "\n" not in message
    assert " must be " in message or "expected at most" in message


@pytest.mark.parametrize("digits", [26, 400, 5000])
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("train", "recipe.learning_rate"),
        ("train", "recipe.global_batch_size"),
        ("train", "augmentation.gamma"),
        ("train", "preprocessing.mean"),
        ("train", "checkpoint.keep"),
        ("evaluate", "threshold"),
        ("pack", "samples_per_shard"),
        ("doctor", "wait_seconds"),
    ],
)
def test_a_whole_number_that_no_machine_counts_to_is_refused_by_name(tmp_path, stage, name, digits):
    number = f"1{digits * '0'}"
    number = f"[1, {number}]" if name == "augmentation.gamma" else number
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{'  ' * n}{key}:\n" for n, key in enumerate(name.split("."))))
    path.write_text(f"{path.read_text().rstrip()} {number}\n")
    for words in ([f"--{name}={number}"], [f"--config={path}"]):
        message = refused([*ANYTHING[stage], *words], stage)
        assert name in message or (digits == 5000 and "file of --config holds a num" in message)
        assert "\n" not in message and len(message) < 300


def test_a_name_of_many_digits_is_a_name():
    digits = "2" * 30
    config = parse_config("pack", ["--layout=busi", "--source=s", "--output=o", f"--name={digits}"])
    assert config.name == digits


def test_no_epochs_are_refused():
    words = ["--output=o", "--data.dataset=d", "--recipe.epochs=0"]
    assert "recipe.epochs or recipe.steps must be positive" in refused(words)


PATHS = {
    "train": ["output", "data.dataset", "data.pseudo_labels", "data.cache", "init"],
    "teach": ["output", "dataset", "cache"],
    "evaluate": ["output", "dataset", "weights", "teacher_record"],
    "pack": ["output", "source", "card", "deidentify_key"],
    "verify": ["folder", "source"],
    "inspect": ["pseudo_labels", "output"],
    "attention": ["output", "dataset"],
    "phantoms": ["output"],
    "report": ["output"],
}


@pytest.mark.parametrize("path", ["", "a\0b"], ids=["nothing", "nul"])
@pytest.mark.parametrize(("stage", "name"), [(s, name) for s in PATHS for name in PATHS[s]])
def test_what_no_file_can_be_called_is_refused_by_the_setting(stage, name, path):
    assert f"{name} must be a path" in refused([*ANYTHING[stage], f"--{name}={path}"], stage)


@pytest.mark.parametrize("weight", [".inf", ".nan", "0"])
def test_a_weight_that_is_no_positive_number_is_refused_by_its_name(weight):
    teachers = f"--teachers=[{{weights: w, weight: {weight}}}]"
    assert "teachers.weight must be" in refused(["--dataset=d", "--output=o", teachers], "teach")
    for part in ("attention: {preset: paper, beta", "distillation: {weight", "distillation: {temp"):
        part = part.replace("temp", "temperature")
        teacher = f"--teacher={{weights: w, {part}: {weight}}}}}"
        assert " must be positive" in refused([*ANYTHING["train"], teacher])


def test_losses_that_both_weigh_nothing_are_refused():
    weights = ["--recipe.dice_weight=0", "--recipe.cross_entropy_weight=0"]
    assert "not both 0" in refused([*ANYTHING["train"], *weights])


def test_a_program_in_the_place_of_a_settings_file_is_refused_by_its_name(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\x7fELF\x02\xff\xfe\x00seed: 1")
    assert f"{path}: not UTF-8 text" in refused([f"--config={path}"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "model",
    [
        "{name: unet, options: {base_channels: 1000000}}",
        "{name: unet, options: {base_channels: 90000}}",
        "{name: attention_unet, options: {base_channels: 90000}}",
        "{name: 'smp:Unet/resnet18', options: {decoder_channels: [90000, 90000, 9000, 9, 9]}}",
    ],
)
def test_a_network_of_settings_that_no_memory_holds_is_refused(tmp_path, capsys, model):
    dataset = make_packed_dataset(tmp_path, 2, splits={"train": 1.0})
    words = ["--data.dataset", str(dataset), "--recipe.steps=1", "--model", model]
    assert main(["train", *words, f"--output={tmp_path / 'out'}", "--device=cpu"]) == 2
    message = capsys.readouterr().err
    assert "lower in_channels, num_outputs or options" in message and "Traceback" not in message


def test_channels_that_no_image_has_are_refused_before_a_network_is_built(tmp_path, capsys):
    dataset = make_packed_dataset(tmp_path, 2, splits={"train": 1.0})
    words = ["--data.dataset", str(dataset), "--recipe.steps=1", "--device=cpu"]
    model = "--model={name: unet, in_channels: 999999999}"
    assert main(["train", *words, model, f"--output={tmp_path / 'out'}"]) == 2
    message = capsys.readouterr().err
    assert "which can be brought to 1 or 3" in message and "Traceback" not in message


def test_a_classifier_that_no_memory_holds_is_refused():
    with pytest.raises(ConfigurationError, match="lower in_channels"):
        build_configured(ModelSpec("densenet40", in_channels=999_999_999))


def test_segmentation_with_several_outputs_is_refused_by_the_setting(tmp_path, capsys):
    dataset = make_packed_dataset(tmp_path, 2, splits={"train": 1.0})
    words = ["--data.dataset", str(dataset), "--recipe.steps=1", "--device=cpu"]
    model = "--model={name: unet, num_outputs: 7}"
    assert main(["train", *words, model, f"--output={tmp_path / 'out'}"]) == 2
    assert "model.num_outputs is 7" in capsys.readouterr().err


def test_the_largest_seed_trains(tmp_path):
    dataset = make_packed_dataset(tmp_path, 4, splits={"train": 1.0})
    words = ["--data.dataset", str(dataset), "--recipe.steps=1", "--device=cpu", "--threads=1"]
    model = "--model={name: unet, options: {base_channels: 4, normalisation: none}}"
    for streaming in ("false", "true"):
        output = f"--output={tmp_path / streaming}"
        seeds = [f"--seed={LARGEST_SEED}", f"--data.streaming={streaming}"]
        seeds += [f"--data.subset_seed={LARGEST_SEED}"]
        assert main(["train", *words, model, output, *seeds]) == 0


URLS = [
    "pipe:mkdir mark",
    "pipe://mkdir mark",
    "PIPE:mkdir mark",
    "pipe:cat shard.tar | mkdir mark",
    "simplecache::pipe://mkdir mark",
    "filecache::simplecache::pipe:mkdir mark",
    "zip://inner::pipe:mkdir mark",
    "shell:mkdir mark",
    "cmd:mkdir mark",
    "exec://mkdir mark",
    "python://os.mkdir('mark')",
    "reference://::{folder}/spec.json",
    "simplecache::reference://::{folder}/spec.json",
    "dask://scheduler/dataset",
]


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Path:
    """A folder with a specification whose templates would be rendered; returns the folder."""
    monkeypatch.chdir(tmp_path)
    code = "{{ cycler.__init__.__globals__.os.mkdir('mark') }}"
    (tmp_path / "spec.json").write_text(
        f'{{"version": 1, "templates": {{"u": "{code}"}}, "refs": {{"manifest.json": "{code}"}}}}'
    )
    return tmp_path


@pytest.mark.parametrize("url", URLS)
def test_an_address_that_is_a_command_is_refused_wherever_an_address_is_read(trap, url):
    url = url.format(folder=trap)
    dataset = IndexedShards(make_packed_dataset(trap, 2, splits={"train": 1.0}))
    cache = trap / "cache"
    for read in (
        lambda: DatasetLocation(url, cache),
        lambda: IndexedShards(url, cache=cache),
        lambda: PseudoLabels(url, dataset, cache),
        lambda: select_samples(url, None, cache=str(cache)),
        lambda: select_samples(str(dataset.root), None, url, cache=str(cache)),
    ):
        with pytest.raises(DatasetError, match=r"is not opened|cannot be opened"):
            read()
    assert not (trap / "mark").exists()


STAGES = {
    "inspect": ["{url}", "--output=o"],
    "teach": ["--dataset={url}", "--output=o", "--teachers=[{{weights: '{url}'}}]"],
    "train": ["--output=o", "--data.dataset={url}", "--recipe.steps=1"],
    "evaluate": ["--output=o", "--weights={url}", "--dataset={url}"],
    "verify": ["{url}"],
    "report": ["{url}", "--output=o"],
    "pack": ["--layout=image_folder", "--source={url}", "--output=o"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_runs_an_address_as_a_command(trap, capsys, stage):
    words = [word.format(url="pipe:mkdir mark") for word in STAGES[stage]]
    assert main([stage, *words]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not (trap / "mark").exists()


def test_streaming_opens_no_command_either(trap):
    for url in ("pipe:mkdir mark", "simplecache::pipe://mkdir mark"):
        with pytest.raises(DatasetError):
            batches._opener(url)
    assert not (trap / "mark").exists()
