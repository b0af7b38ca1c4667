"""Odd command lines of every stage: one line that says what to do, never a traceback."""

import os

import pytest

from nakt_dist.cli import main
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A packed dataset, one without masks, pseudo-labels, weights, and things that are none."""
    folder = tmp_path_factory.mktemp("odd")
    dataset = make_packed_dataset(folder)
    make_packed_dataset(folder, name="maskless", with_masks=False)
    make_pseudo_labels(folder, dataset).rename(folder / "taught")
    make_weights(folder / "network.safetensors")
    (folder / "empty").mkdir()
    (folder / "file").write_text("hello")
    (folder / "unfinished" / ".pack").mkdir(parents=True)
    (folder / "above").mkdir()
    (folder / "above" / "below").symlink_to(dataset)
    return folder


TRAIN = (
    "train --output={0}/out --data.dataset={0}/squares --recipe.steps=1 --model.name=unet "
    "--device=cpu"
)
TEACH = "teach --dataset={0}/squares --output={0}/te --device=cpu"
TAUGHT = TEACH + ' --teachers=[{{"weights":"{0}/network.safetensors"}}]'
WEIGH = (
    "weigh --dataset={0}/squares --output={0}/we --device=cpu --splits=null "
    '--teachers=[{{"weights":"{0}/network.safetensors"}},{{"weights":"{0}/network.safetensors"}}]'
)
EVALUATE = (
    "evaluate --weights={0}/network.safetensors --dataset={0}/squares --output={0}/ev --device=cpu"
)
PREDICT = "predict {0}/network.safetensors {0}/squares-published --output={0}/pr --device=cpu"
ATTENTION = (
    "attention --student.weights={0}/network.safetensors --teacher.weights={0}/network.safetensors"
    " --dataset={0}/squares --output={0}/at"
)
PACK = "pack --layout=image_folder --source={0}/squares-published --output={0}/pk --workers=1"
PACK_FIRST = "nakt pack --layout image_folder --source"

ODD = [
    (TRAIN + " --recipe.steps=abc", "recipe.steps is abc; expected a whole number or null"),
    (TRAIN + " --recipe.steps=-1", "positive"),
    (TRAIN + " --recipe.learning_rate=nan", "recipe.learning_rate is nan"),
    (TRAIN + " --recipe.learning_rate=1e99", "recipe.learning_rate"),
    (TRAIN + " --recipe.micro_batch_size=3", "not a multiple"),
    (TRAIN + " --data=3", "data is 3; expected settings by name, such as {dataset: …}"),
    (TRAIN + " --recipe=[1]", "recipe is a list; expected settings by name"),
    (TRAIN + " --model=unet", "--model.name unet"),
    (TRAIN + " --augmentation.gamma=3", "augmentation.gamma is 3; expected a list"),
    (TRAIN + " --data.splits=[nope]", "split 'nope' is not in"),
    (TRAIN + " --data.count=999", "Lower it"),
    (TRAIN + " --data.dataset={0}/squares-published", PACK_FIRST),
    (TRAIN + " --data.dataset={0}/empty", "the folder is empty"),
    (TRAIN + " --data.dataset={0}/file", "is a file"),
    (TRAIN + " --data.dataset={0}/absent", "there is no such folder"),
    (TRAIN + " --data.dataset={0}/unfinished", "nakt pack began it and has not finished"),
    (TRAIN + " --data.dataset={0}/above", "one folder further down"),
    (TRAIN + " --data.dataset={0}/taught", "found 'nakt-pseudo-labels"),
    (TRAIN + " --data.dataset={0}/maskless", "have no mask"),
    (TRAIN + " --data.pseudo_labels={0}/squares-published", PACK_FIRST),
    (TRAIN + " --validation.dataset={0}/squares-published", PACK_FIRST),
    (TRAIN + " --validation.splits=[validation]", "validation is set without dataset"),
    (TRAIN + " --teacher.distillation={{}}", "teacher is set without weights"),
    (TRAIN + " --output={0}/file", "is a file, expected a folder"),
    (TRAIN + " --output={0}/file/x", "{0}/file/x"),
    (TRAIN + " --init={0}/empty", "holds no best.safetensors"),
    (TRAIN + " --init={0}/absent.safetensors", "no such weights file"),
    (TRAIN + " --task=classification --model=null", "no findings to classify"),
    (TRAIN + " --trainable=[nope]", "there is no layer 'nope'"),
    (TEACH + " --teachers=[3]", "a part of teachers is 3; expected settings by name"),
    (TEACH + " --teachers=[{{weights:x}}]", "a blank belongs after the colon"),
    (TEACH + " --teachers=[]", "at least one teacher"),
    (TEACH + ' --teachers=[{{"weights":"{0}/file"}}]', "unknown kind of weights file"),
    (TAUGHT + " --dataset={0}/squares-published", PACK_FIRST),
    (TAUGHT + " --batch_size=-1", "batch_size must be positive"),
    (WEIGH + " --dataset={0}/squares-published", PACK_FIRST),
    (WEIGH + ' --teachers=[{{"weights":"{0}/network.safetensors"}}]', "a list of 2 to 12 teachers"),
    (WEIGH + " --output={0}/squares", "holds what pack has written"),
    (EVALUATE + " --dataset={0}/squares-published", PACK_FIRST),
    (EVALUATE + " --dataset={0}/empty", "the folder is empty"),
    (EVALUATE + " --weights={0}/squares-published/image_000.png", "unknown kind of weights file"),
    (EVALUATE + " --output={0}/squares", "holds what pack has written"),
    (EVALUATE + " --bootstrap_samples=0", "bootstrap_samples must be positive"),
    ("export {0}/empty", "expected a weights file"),
    ("export {0}/network.safetensors --formats=[onnx]", "formats must be a list with safetensors"),
    (
        "export {0}/network.safetensors --formats=[safetensors] --output={0}/squares",
        "holds what pack has written",
    ),
    (PREDICT + " --batch_size=0", "batch_size must be"),
    (PREDICT + " --files=[mask]", "files"),
    (PREDICT + " --output={0}/squares", "holds what pack has written"),
    (PREDICT.replace("squares-published", "absent"), "{0}/absent"),
    (PREDICT.replace("squares-published", "empty"), "{0}/empty"),
    (ATTENTION + " --dataset={0}/squares-published", PACK_FIRST),
    (ATTENTION + " --student=x", "student is the text 'x'"),
    (PACK + " --source={0}/empty", "found nothing"),
    (PACK + " --source={0}/file", "a file is there"),
    (PACK + " --image.height=99999 --image.width=10", "image.height and image.width must be"),
    (PACK + " --image.height=0", "image.height and image.width must be from 1 to 65500"),
    (PACK + ' --splits.fractions={{"train":.nan}}', "fraction of the split 'train' is nan"),
    (PACK + ' --splits.fractions={{"train":-1,"test":2}}', "expected 0 to 1"),
    (PACK + " --splits.fractions={{}}", "fractions"),
    (PACK + " --layout=nope", "no layout 'nope'"),
    (PACK + " --layout=busi", "expected the folder 'benign'"),
    ("inspect {0}/squares-published", PACK_FIRST),
    ("inspect {0}/file", "is a file"),
    ("inspect {0}/taught --dataset={0}/squares-published", PACK_FIRST),
    ("inspect {0}/squares --output={0}/file", "{0}/file"),
    ("verify {0}/squares-published", PACK_FIRST),
    ("verify {0}/empty", "the folder is empty"),
    ("report {0}/empty", "found no record.json"),
    ("report {0}/file", "no such folder"),
    ("watch {0}/absent", "no such folder"),
    ("mirror {0}/absent --to tensorboard", "no such folder"),
    ("mirror {0}/empty --to tensorbord", "tensorboard"),
    ("watch {0}/empty --host=0.0.0.0", "host must be a loopback address such as 127.0.0.1"),
    ("watch {0}/empty --prefix=gpu01/", "prefix must be empty, or begin with /"),
    ("study --steps=[]", "steps must be a list with at least one step"),
    ('study --steps=[{{"stage":"train","config":[1]}}]', "the settings are [1]"),
    ("study --steps=[train]", "expected settings by name"),
    ("train --config", "--config names no file"),
    ("train --config={0}/empty", "not a regular file"),
    ("phantoms --kind=thyroid --output={0}/ph", "did you mean 'thyroid_ultrasound'?"),
    ("submit train --nodes=0 -- --x", "nodes must be positive"),
    ("trian", "did you mean 'train'?"),
]


@pytest.mark.parametrize(("line", "told"), ODD, ids=[line.format("") for line, _ in ODD])
def test_an_odd_command_line_is_one_line_that_says_what_to_do(line, told, place, capsys):
    status = main(line.format(place).split())
    errors = [each for each in capsys.readouterr().err.splitlines() if "nakt: error" in each]
    assert status in (1, 2)
    assert len(errors) == 1
    assert told.replace("{0}", str(place)) in errors[0]


@pytest.mark.parametrize("line", [TRAIN, TAUGHT, EVALUATE, ATTENTION], ids=lambda line: line[:5])
def test_doctor_says_that_a_raw_folder_is_packed_first(line, place, capsys):
    name = "--data.dataset" if line is TRAIN else "--dataset"
    words = (line + f" {name}={{0}}/squares-published").format(place).split()
    assert main(["doctor", *words]) == 1
    assert f"{PACK_FIRST} {place}/squares-published --output …" in capsys.readouterr().out


def test_doctor_foresees_a_report_of_nothing(place, capsys):
    assert main(["doctor", "report", str(place / "empty")]) == 1
    assert "no record.json of a finished stage" in capsys.readouterr().out


def test_fractions_that_cannot_be_leave_no_packing_begun(place, tmp_path, capsys):
    words = PACK.format(place).replace(f"{place}/pk", str(tmp_path / "out")).split()
    assert main([*words, "--splits.fractions={train: 2}"]) == 2
    assert "expected 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_tables_is_packed_with_its_table(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    assert main(["verify", str(tmp_path)]) == 1
    assert "nakt pack --layout images_csv" in capsys.readouterr().err


# ------------------------------------------------------------------------- settings files

FILES = {
    "empty": ("", "{0}: is empty; expected settings by name"),
    "null": ("# nothing yet\n", "{0}: is empty"),
    "list": ("- a\n- b\n", "{0}: holds a list; expected settings by name"),
    "number": ("42\n", "{0}: holds '42' alone"),
    "text": ("hello\n", "{0}: holds 'hello' alone"),
    "tab": ("recipe:\n\tsteps: 3\n", "{0}, line 2: cannot be read as YAML"),
    "bracket": ("output: o\ndata: {dataset: x\nseed: 3\n", "{0}, line 3: cannot be read as YAML"),
    "two": ("a: 1\n---\nb: 2\n", "{0}, line 2: cannot be read as YAML"),
    "twice": ("output: a\noutput: b\n", "{0}: the setting 'output' stands there twice"),
    "typo": ("data: {dataset: d}\noutptu: a\n", "{0}, line 2: there is no setting 'outptu'"),
    "typo inside": (
        "output: o\ndata:\n  dataset: d\nrecipe:\n  steps: 1\n  learning_rte: 1\n",
        "{0}, line 6: there is no setting 'recipe.learning_rte', did you mean",
    ),
    "type": (
        "output: o\ndata: {dataset: d}\nrecipe:\n  steps: many\n",
        "{0}, line 4: recipe.steps is many; expected a whole number or null",
    ),
    "range": (
        "output: o\ndata: {dataset: d}\nrecipe:\n  steps: 1\n  learning_rate: -1\n",
        "{0}, line 5: recipe.learning_rate must be positive",
    ),
    "group": ("output: o\ndata: x\n", "{0}, line 2: data is the text 'x'"),
    "dotted": ("output: o\ndata.dataset: d\nrecipe.steps: -0.5\n", "{0}, line 3: recipe.steps is"),
    "bytes": (bytes(range(128, 256)), "{0}: not UTF-8 text"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_wrong_with_a_settings_file_is_told_with_its_name_and_line(kind, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    text, told = FILES[kind]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["train", f"--config={path}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"nakt: error: {told.format(path)}")
    assert message.count("\n") == 1
    if kind == "tab":
        assert "YAML is indented by blanks" in message


def test_a_setting_of_the_command_line_is_not_blamed_on_the_file(tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text("output: o\ndata: {dataset: d}\nrecipe:\n  steps: 1\n")
    assert main(["train", f"--config={path}", "--recipe.steps=many"]) == 2
    assert capsys.readouterr().err.startswith("nakt: error: recipe.steps is many")
    assert main(["train", "--config", str(path), "--recipe.stpes", "3"]) == 2
    assert capsys.readouterr().err.startswith("nakt: error: there is no setting 'recipe.stpes'")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--model.base_channels=8", "did you mean 'in_channels', or model.options: {base_chan"),
        ("--model={name: unet, width: half}", "'width', did you mean model.options: {width: …}?"),
    ],
)
def test_an_option_of_a_network_that_stands_beside_its_options_is_sent_there(word, told, capsys):
    assert main(["train", "--output=o", "--data.dataset=d", word]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_settings_file_that_may_not_be_read_is_named(tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text("output: o\n")
    path.chmod(0)
    assert main(["train", f"--config={path}"]) == 2
    assert f"{path}: cannot be read" in capsys.readouterr().err


def test_every_stage_but_doctor_and_submit_has_odd_lines_here():
    from nakt_dist.cli import STAGES

    tried = {line.split()[0] for line, _ in ODD}
    assert set(STAGES) - {"doctor"} <= tried
    assert len(ODD) > 40
