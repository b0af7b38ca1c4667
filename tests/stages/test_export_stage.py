"""``nakt export``: files that answer alike, a card that parses, all or nothing, no place inside."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard

from nakt_dist.cli import main
from nakt_dist.config import ExportConfig, PreprocessingConfig
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError, NaktError
from nakt_dist.evaluation.class_activation import exact_class_activation, find_pooled_features
from nakt_dist.evaluation.classification_summary import summarise_classification
from nakt_dist.exporting import folder, writing
from nakt_dist.exporting.card_header import card_header
from nakt_dist.exporting.description import describe_network
from nakt_dist.exporting.few import findings_not_told, not_told, told_of
from nakt_dist.exporting.places import without_places
from nakt_dist.models import ModelSpec
from nakt_dist.models.network_file import describe_for_file, open_network
from nakt_dist.models.onnx_metadata import read_metadata
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.models.taps import TeacherTap
from nakt_dist.models.weights import save_weights
from nakt_dist.report.runs import collect
from nakt_dist.runtime.files import file_sha256
from nakt_dist.stages import export
from tests.classifier_records import (
    FINDINGS,
    classifier,
    followed,
    images_of,
    start,
    write_classified,
)
from tests.records import RULE, lineage, pseudo_masks, scores, write_evaluation

UNET = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})
RESNET = ModelSpec("timm:test_resnet", 1, len(FINDINGS))
SEEN = PreprocessingConfig(mean=0.0, std=1.0)
TAP = "layer4"
SIZE = {"height": 32, "width": 32}
PSEUDO = pseudo_masks("thyroid", ["teacher"], 5, 8, RULE) | SIZE | {"fit": "pad"}


def write_run(root, told, spec=UNET, seen=None, name="student"):
    """Writes the weights of a run, and what its record says of them."""
    run = root / "runs" / name
    run.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state_dict = spec.build().state_dict()
    path = run / "best.safetensors"
    save_weights(path, state_dict, spec, describe_for_file(seen or SEEN, told))
    return run, {"weights_sha256": file_sha256(path)}


def write_masks(root):
    """A student of pseudo masks with its evaluation, whose record names places and patients."""
    told = lineage(PSEUDO) | {"task": "segmentation"}
    run, inputs = write_run(root, told)
    tests = write_evaluation(root / "tests" / "student", told, scores(0.75))
    record = json.loads((tests / "record.json").read_text())
    record["inputs"] |= inputs
    record["metrics"]["knowledge_transfer_capability"] = 93.75
    (tests / "record.json").write_text(json.dumps(record))
    (root / ".study").mkdir()
    return run


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """The folder of an exported segmentation network, with ONNX."""
    run = write_masks(tmp_path_factory.mktemp("masks"))
    export.run(ExportConfig(str(run), licence="apache-2.0"))
    return run.with_name("student-export")


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """The folder of an exported classifier that gives a tap and its class activations, too."""
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("findings")
    told = classifier(transfer=followed(), network=RESNET.name)
    run, inputs = write_run(root, told, RESNET, PreprocessingConfig(64, 64, 0.5, 0.25))
    tests = root / "tests" / "student"
    write_classified(tests, told, operating=True)
    record = json.loads((tests / "record.json").read_text())
    record["inputs"] |= inputs
    (tests / "record.json").write_text(json.dumps(record))
    config = ExportConfig(
        str(run), output=str(root / "out"), records=[str(root)], taps=[TAP], class_activations=True,
        licence="Hospital licence 2", not_for=["Images of children."],
    )  # fmt: skip
    export.run(config)
    return root / "out"


def plain(run, **settings):
    return ExportConfig(str(run), formats=["safetensors"], **settings)


def run_onnx(path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path / "model.onnx")
    told = read_metadata(session.get_modelmeta().custom_metadata_map, path)
    names = [each.name for each in told.outputs]
    assert [each.name for each in session.get_outputs()] == names
    found = session.run(names, {"images": images.numpy()})
    return told, {n: torch.from_numpy(a) for n, a in zip(names, found, strict=True)}


@pytest.mark.parametrize("name", ["masks", "findings"])
def test_all_forms_answer_as_the_test_vector_says(name, request):
    path = request.getfixturevalue(name)
    vector = safetensors.torch.load_file(path / "test_vector.safetensors")
    assert len(vector["images"]) == 3 and 0 <= vector["pixels"].min() < vector["pixels"].max() <= 1
    trained = open_network(path)
    torch.testing.assert_close(trained.prepare(vector["pixels"]), vector["images"])
    torch.testing.assert_close(trained.network(vector["images"]), vector["logits"])
    for images in (vector["images"], vector["images"][:1]):
        told, found = run_onnx(path, images)
        for output, values in found.items():
            torch.testing.assert_close(values, vector[output][: len(images)], atol=1e-4, rtol=1e-4)
    assert (told.lineage, told.weights_sha256) == (trained.lineage, trained.weights_sha256)


@pytest.mark.parametrize("name", ["masks", "findings"])
def test_the_onnx_file_is_opened_as_the_network_that_it_is(name, request):
    path = request.getfixturevalue(name)
    pixels = safetensors.torch.load_file(path / "test_vector.safetensors")["pixels"]
    weights, found = open_network(path), open_network(path / "model.onnx")
    assert (found.spec, found.lineage) == (weights.spec, weights.lineage)
    assert found.name == "student" and found.describe(ImageForm(32, 32)) == []
    torch.testing.assert_close(found.logits(pixels), weights.logits(pixels), atol=1e-4, rtol=1e-4)
    if name == "findings":
        seen = weights.prepare(pixels)
        maps = [TeacherTap(each.network, [TAP]).activations(seen)[0] for each in (weights, found)]
        torch.testing.assert_close(*maps, atol=1e-4, rtol=1e-4)


def test_a_classifier_gives_its_tap_and_class_activations(findings):
    images = safetensors.torch.load_file(findings / "test_vector.safetensors")["images"]
    told, found = run_onnx(findings, images)
    assert told.answer.names == told.outputs[2].names == FINDINGS
    assert [each.kind for each in told.outputs] == ["answer", "tap", "class_activation"]
    network = open_network(findings).network
    pooled = find_pooled_features(network, images)
    expected = exact_class_activation(network, pooled, images, range(len(FINDINGS)))
    torch.testing.assert_close(found["class_activations"], expected, atol=1e-4, rtol=1e-4)
    bias = pooled.head.bias
    torch.testing.assert_close(
        found["class_activations"].mean((2, 3)) + bias, found["logits"], atol=1e-4, rtol=1e-4
    )
    assert found[TAP].ndim == 4 and found[TAP].shape[:2] == (3, pooled.head.in_features)


def test_weights_of_ours_are_copied_byte_for_byte(masks):
    run = masks.with_name("student")
    copy = (masks / "model.safetensors").read_bytes()
    assert copy == (run / "best.safetensors").read_bytes()
    assert open_network(masks).name == "student-export"
    assert open_network(masks).lineage["trained_on"]["dataset"] == "thyroid"


def test_the_card_of_a_network_that_segments(masks):
    card = ModelCard((masks / "README.md").read_text())
    told = card.data.to_dict()
    assert told["license"] == "apache-2.0" and told["pipeline_tag"] == "image-segmentation"
    assert "phantom" in told["tags"] and card.data.model_name == "student"
    (result,) = card.data.eval_results
    record = json.loads((masks.parents[1] / "tests/student/record.json").read_text())
    assert result.metric_value == record["metrics"]["dice_mean"] == pytest.approx(75)
    assert result.metric_args["interval_95"] == record["metrics"]["dice_interval_95"]
    for words in (
        "5 of 8",  # images after and before exclusion
        "N < 256 or E > 2.5 bits",
        "pseudo masks of “teacher”",
        "75.00 ± 10.00",
        "93.8",  # of its teacher's Dice
        record["inputs"]["weights_sha256"],
        PSEUDO["teachers"][0]["weights_sha256"],
        "It must not be used for",
        "drawn by a program",
    ):
        assert words in card.text, words


def test_the_card_tells_how_masks_were_scored_and_leaves_out_what_was_seen_otherwise(
    tmp_path, capsys
):
    run = write_masks(tmp_path)
    record = json.loads((tmp_path / "tests/student/record.json").read_text())
    for name, inputs in {
        "bold": {"threshold": 0.3, "both_empty": "nan"},
        "alike": {"splits": ["validation"], "preprocessing": vars(SEEN) | SIZE},
        "built": {"model": vars(replace(UNET, options={"width": "classic"}))},
        "as packed": {"preprocessing": vars(SEEN)},  # at 64 × 64
        "dark": {"preprocessing": vars(SEEN) | {"mean": 0.5}},
        "large": {"preprocessing": vars(SEEN) | {"height": 512, "width": 512}},
    }.items():
        told = record | {"name": name, "inputs": record["inputs"] | inputs}
        (tmp_path / "tests" / name).mkdir()
        (tmp_path / "tests" / name / "record.json").write_text(json.dumps(told))
    export.run(plain(run))
    card = ModelCard((run.with_name("student-export") / "README.md").read_text())
    assert len(card.data.eval_results) == 3
    assert {each.metric_args["threshold"] for each in card.data.eval_results} == {0.5, 0.3}
    assert card.text.count("target above 0.5; both masks empty: 1 |") == 2
    assert card.text.count("target above 0.3; both masks empty: left out |") == 1
    said = capsys.readouterr().err
    for words in (
        "/dark is not on the card",
        "mean 0.5, and it is exported with 0.0",
        "height 512",
        "/built is not on the card: there the network was another (model.options.",
        "/as packed is not on the card: there the network saw preprocessing.height 64, and it is "
        "exported with 32",
    ):
        assert words in said, words


def test_the_card_of_a_classifier(findings):
    card = ModelCard((findings / "README.md").read_text())
    told = card.data.to_dict()
    assert (told["license"], told["license_name"]) == ("other", "hospital-licence-2")
    record = json.loads((findings.parent / "tests/student/record.json").read_text())
    values = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert values["AUROC, %, mean over findings"] == record["metrics"]["auroc_mean"]
    assert {f"AUROC, %, {name}" for name in FINDINGS} <= values.keys()
    for words in (
        "Labels of the test: uncertain labels as zero", "attention transfer", "sex: F",
        "Images of children.", "Findings other than its 4", "| Edema | youden |",
        "| Edema | sensitivity 0.9 |", "less the mean 0.5, divided by the deviation 0.25",
    ):  # fmt: skip
        assert words in card.text, words


def test_the_card_warns_of_test_images_that_were_met_and_hides_few_patients(tmp_path):
    told = classifier(images_of() | SIZE, network=RESNET.name)
    run, inputs = write_run(tmp_path, told, RESNET)
    tests = tmp_path / "tests" / "student"
    write_classified(tests, told)
    record = json.loads((tests / "record.json").read_text())
    record["inputs"] |= inputs
    record["inputs"]["splits"] = ["train"]
    record["details"]["subgroups"][0] |= {"images": 7, "patients": 4}
    (tests / "record.json").write_text(json.dumps(record))
    export.run(plain(run, records=[str(tmp_path)]))
    card = (tmp_path / "runs" / "student-export" / "README.md").read_text()
    assert "⚠ On chexpert (phantom), split train: it learnt from the very splits" in card
    group = record["details"]["subgroups"][0]
    assert f"| {group['attribute']}: {group['group']} | not told | < 5 |" in card
    assert ModelCard(card).data.eval_results is None  # no figure without its warning
    assert "| sex: M | not told | not told |" in card  # else all less the others would tell


def test_the_card_says_what_first_weights_learnt_from(tmp_path):
    """As a network tells that was started with ``init: imagenet``, and one with a library's."""
    images = {"dataset": "imagenet", "fingerprint": "", "phantom": False, "samples": 0}
    stored = {"task": "classification", "trained_on": images}
    told = {
        "begun": classifier(images_of() | SIZE, RESNET.name, parent=start("lite0", stored)),
        "brought": classifier(images_of() | SIZE, RESNET.name, options={"pretrained": True}),
    }
    told["last"] = classifier(images_of() | SIZE, RESNET.name, parent=start("x", told["brought"]))
    cards = {}
    for name, each in told.items():
        run, _ = write_run(tmp_path, each, RESNET, name=name)
        export.run(plain(run))
        cards[name] = (tmp_path / "runs" / f"{name}-export" / "README.md").read_text()
    assert not [name for name, card in cards.items() if "random" in card]
    assert "“lite0”, which learnt from imagenet." in cards["begun"]
    assert "| 1 | imagenet | not known | not known | not known |" in cards["begun"]
    assert "| 2 | chexpert (phantom) | 100 | split train | annotations |" in cards["begun"]
    for name in ("brought", "last"):
        assert "pretrained ones that a library brings (the library's weights)" in cards[name]


def test_the_card_tells_of_its_dataset_and_how_images_were_packed(tmp_path):
    images = {"image": {"encoding": "jpg", "jpeg_quality": 91}}
    for name, phantom in (("real", False), ("drawn", True)):
        told = classifier(images_of("chestxray14", phantom=phantom) | SIZE | images, RESNET.name)
        run, _ = write_run(tmp_path, told, RESNET, name=name)
        export.run(plain(run))
    card = (tmp_path / "runs" / "real-export" / "README.md").read_text()
    for words in (
        "chest X-ray, frontal", "No restrictions on use", "CXR8", "JPEG of quality 91",
        "Pillow's bilinear filter", "nakt predict FOLDER images/", "may be in two",
    ):  # fmt: skip
        assert words in card, words
    assert "CXR8" not in (tmp_path / "runs" / "drawn-export" / "README.md").read_text()


def card_of_few(tmp_path, finding):
    """Returns the card of a classifier whose first finding is changed so in its evaluation."""
    told = classifier(images_of() | SIZE, network=RESNET.name)
    run, inputs = write_run(tmp_path, told, RESNET)
    tests = tmp_path / "tests" / "student"
    write_classified(tests, told, operating=True)
    record = json.loads((tests / "record.json").read_text())
    record["inputs"] |= inputs
    record["details"]["labels"][0] |= finding
    record["details"]["operating_points"]["findings"][1]["points"][0]["threshold"] = 3.25e-5
    record["details"]["interval"]["cautions"] = ["87 % of the resamples lack a class"]
    (tests / "record.json").write_text(json.dumps(record))
    export.run(plain(run, records=[str(tmp_path)]))
    return ModelCard((tmp_path / "runs" / "student-export" / "README.md").read_text()), record


@pytest.mark.parametrize("few", [{"positives": 1, "negatives": 79}, {"positives": 78}])
def test_a_finding_with_few_images_cannot_be_counted_back(tmp_path, few):
    card, record = card_of_few(tmp_path, {"positives": 10, "negatives": 2} | few)
    row = "not told | < 5" if few["positives"] == 78 else "< 5 | not told"
    assert f"| {FINDINGS[0]} | {row} | – | – | – | – |" in card.text
    assert f"{FINDINGS[0]} | youden" not in card.text and f"{FINDINGS[1]} | youden" in card.text
    values = {each.metric_name: each for each in card.data.eval_results}
    assert f"AUROC, %, {FINDINGS[0]}" not in values
    mean = values["AUROC, %, mean over findings"]
    others = [each["auroc"] for each in record["details"]["labels"][1:]]
    assert mean.metric_value == pytest.approx(sum(others) / 3)
    assert "interval_95" not in mean.metric_args
    assert "| sex: F | 40 | 20 | – | 0 |" in card.text
    assert "87 %" not in card.text  # the share tells how many patients show the rarest finding


def test_a_caution_of_an_evaluation_is_on_the_card(tmp_path):
    card, record = card_of_few(tmp_path, {"resamples_left_out": 6})  # of 50
    assert "⚠ On chexpert (phantom), split test: 87 % of the resamples lack a class." in card.text
    assert f"| {FINDINGS[1]} | youden | 3.25e-05 |" in card.text
    assert "Chosen on chexpert (phantom), split validation: an image is called" in card.text
    low, high = record["details"]["labels"][0]["auroc_interval_95"]
    assert f"{low:.2f} to {high:.2f} ⚠" in card.text


def test_parts_of_a_whole_leave_no_few_behind():
    few = [False, True, False, False]
    assert not_told([30, 2, 40, 10], [False] * 4) == set()
    assert not_told([30, 2, 40, 10], few) == {1, 2}
    assert not_told([30, 1, 5, 10], few) == {1, 2, 3}  # 6 of both: 1 and 5 alone
    assert not_told([70, 2], [False, True]) == {0, 1}
    assert not_told([0, 2, 3], [False, True, True]) == {1, 2}


def test_of_findings_that_exclude_each_other_no_single_one_is_left_out():
    told = summarise_classification(
        FINDINGS, np.full((80, 4), 0.5), np.zeros((80, 4)), ["x"] * 80, {}, samples=2, seed=0
    )
    counts = [(2, 78), (30, 50), (40, 40), (8, 72)]
    findings = tuple(
        replace(each, positives=p, negatives=n)
        for each, (p, n) in zip(told.findings, counts, strict=True)
    )
    assert findings_not_told(replace(told, findings=findings)) == set(FINDINGS[:2])
    assert findings_not_told(replace(told, images=90, findings=findings)) == {FINDINGS[0]}


def test_few_images_without_a_value_are_not_told(tmp_path):
    folder = write_evaluation(tmp_path / "x", lineage(PSEUDO), [*scores(0.75), float("nan")])
    (run,) = collect([folder]).evaluations
    assert run.images_left_out == 1
    told = told_of(run)
    assert (told.images, told.images_left_out) == (run.images + 1, 0)


@pytest.mark.parametrize("name", ["masks", "findings"])
def test_no_place_and_no_patient_is_handed_on(name, request):
    path = request.getfixturevalue(name)
    files = {each.name: each.read_bytes() for each in path.iterdir()}
    assert set(files) == {
        "model.safetensors", "model.onnx", "test_vector.safetensors", "README.md", "export.json",
    }  # fmt: skip
    words = (str(path.parents[1]), "/home/", "site-packages", "patient-0", "image-0", "nakt_dist/")
    for file, content in files.items():
        assert not [each for each in words if each.encode() in content], file
    listed = json.loads(files["export.json"])["files"]
    assert listed == {n: file_sha256(path / n) for n in files if n != "export.json"}


def test_places_inside_weights_are_cut(tmp_path, capsys):
    teacher = {"name": "/data/St Anna/teacher", "weights_sha256": "0" * 64}
    told = lineage(PSEUDO | {"teachers": [teacher]})
    run, inputs = write_run(tmp_path, told)
    export.run(plain(run))
    written = open_network(tmp_path / "runs" / "student-export")
    assert written.lineage["trained_on"]["teachers"][0]["name"] == "teacher"
    assert written.weights_sha256 != inputs["weights_sha256"]
    assert "written anew" in capsys.readouterr().err
    for file in (tmp_path / "runs" / "student-export").iterdir():
        assert b"St Anna" not in file.read_bytes()


def test_what_is_a_place():
    places = ["/a/b", "~/b", "../a/b", "C:\\a\\b", "file:/a/b", "s3://bucket/a/b", "/a/b/"]
    assert without_places(places) == ["b"] * len(places)
    names = ["Lung Opacity/Lesion", "timm:resnet50", "train", "smp:Unet/resnet34", "", 3, None]
    assert without_places({"names": names}) == {"names": names}


def test_a_second_export_changes_nothing_and_another_is_refused(tmp_path, capsys):
    run = write_masks(tmp_path)
    config = plain(run, output=str(tmp_path / "out"))
    export.run(config)
    before = {each.name: each.stat().st_mtime_ns for each in (tmp_path / "out").iterdir()}
    assert "model.onnx" not in before
    export.run(config)
    assert "was complete already" in capsys.readouterr().err
    assert before == {each.name: each.stat().st_mtime_ns for each in (tmp_path / "out").iterdir()}
    with pytest.raises(DatasetError, match=r"another export \(settings.licence"):
        export.run(replace(config, licence="mit"))
    (tmp_path / "out" / "README.md").write_text("mine")
    with pytest.raises(DatasetError, match=r"README.md: is not as it was exported"):
        export.run(config)


def test_a_killed_export_leaves_nothing_that_looks_done(tmp_path, monkeypatch):
    run = write_masks(tmp_path)
    config = plain(run, output=str(tmp_path / "out"))
    with monkeypatch.context() as patches:

        def killed(*_):
            raise KeyboardInterrupt

        patches.setattr(export, "make_card", killed)
        with pytest.raises(KeyboardInterrupt):
            export.run(config)
        assert [each.name for each in tmp_path.iterdir() if "out" in each.name] == []
        patches.setattr(folder, "remove", lambda path: None)  # as a kill -9 cleans nothing
        with pytest.raises(KeyboardInterrupt):
            export.run(config)
    (left,) = (each for each in tmp_path.iterdir() if "out" in each.name)
    assert left.name.startswith(".") and (left / "model.safetensors").exists()
    assert not (left / "export.json").exists()
    export.run(config)
    assert (tmp_path / "out" / "export.json").exists() and not left.exists()


def test_onnx_that_answers_otherwise_is_an_error(masks, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    run, _ = write_run(tmp_path, lineage(PSEUDO))
    state_dict = safetensors.torch.load_file(run / "best.safetensors")
    state_dict = {name: 1.01 * tensor for name, tensor in state_dict.items()}
    save_weights(
        run / "best.safetensors", state_dict, UNET,
        describe_for_file(SEEN, lineage(PSEUDO)),
    )  # fmt: skip
    monkeypatch.setattr(writing, "to_onnx", lambda *_: onnx.load(masks / "model.onnx"))
    with pytest.raises(NaktError, match=r"'logits' differs from PyTorch's by .* for 1 image,"):
        export.run(ExportConfig(str(run)))
    assert [each.name for each in run.parent.iterdir()] == ["student"]


def test_what_torch_cannot_express_is_said_with_its_reason(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    run, _ = write_run(tmp_path, lineage(PSEUDO))

    def fails(*_, **__):
        raise torch.onnx.OnnxExporterError("step 3/3\nadvice") from ValueError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(NaktError, match=r"as ONNX: ValueError: no such operator. A newer torch"):
        export.run(ExportConfig(str(run)))
    assert [each.name for each in run.parent.iterdir()] == ["student"]


def test_without_the_packages_safetensors_are_exported_all_the_same(tmp_path, monkeypatch):
    run, _ = write_run(tmp_path, lineage(PSEUDO))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nakt_dist\[onnx\]'"):
        export.run(ExportConfig(str(run)))
    record = export.run(plain(run))
    assert record.counts == {"evaluations": 0}
    card = (tmp_path / "runs/student-export/README.md").read_text()
    assert "No evaluation of it was found" in card and "model.onnx" not in card
    assert "No licence is stated" in card and ModelCard(card).data.license is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"class_activations": True}, "unet segments"),
        ({"taps": ["encoder.9"]}, "there is no layer 'encoder.9'"),
        ({"taps": ["logits"]}, "expected different layers"),
        ({"taps": ["paper"]}, "has no tap for the network 'unet'"),
        ({"classes": ["background", "a", "b"]}, "names background, a, b"),
        ({"output": "."}, "holds what train has written"),
        ({"records": ["nowhere"]}, "nowhere: no such folder"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(tmp_path, monkeypatch, settings, message):
    pytest.importorskip("onnx")
    run, _ = write_run(tmp_path, lineage(PSEUDO))
    monkeypatch.chdir(run)
    with pytest.raises((ConfigurationError, DatasetError), match=message):
        export.run(ExportConfig(str(run), **settings))


def test_the_one_output_is_the_target_s_in_whatever_order_classes_are_given(tmp_path):
    run, _ = write_run(tmp_path, lineage(PSEUDO))
    for classes in (["background", "lesion"], ["lesion", "background"]):
        told = describe_network(plain(run, classes=classes), open_network(run))
        assert told.answer.names == ("lesion",)


def test_names_that_replace_the_file_s_are_in_all_forms(tmp_path, capsys):
    run, _ = write_run(tmp_path, classifier(images_of() | SIZE, network=RESNET.name), RESNET)
    renamed = [f"{name} seen" for name in FINDINGS]
    export.run(plain(run, labels=renamed))
    assert open_network(tmp_path / "runs/student-export").lineage["labels"] == renamed
    assert "was written anew" in capsys.readouterr().err
    export.run(plain(run, labels=list(FINDINGS), output=str(tmp_path / "same")))
    assert (tmp_path / "same/model.safetensors").read_bytes() == (
        run / "best.safetensors"
    ).read_bytes()


def test_weights_of_others_say_their_size_and_classes(tmp_path):
    path, spec = tmp_path / "theirs.safetensors", replace(UNET, num_outputs=3)
    safetensors.torch.save_file(spec.build().state_dict(), path)
    with pytest.raises(CheckpointError, match="does not say which network"):
        export.run(plain(path))
    classes = ["background", "benign", "malignant"]
    config = plain(path, model=spec, classes=classes)
    with pytest.raises(ConfigurationError, match=r"set preprocessing.height and preprocessing.w"):
        export.run(config)
    export.run(replace(config, preprocessing=PreprocessingConfig(16, 24)))
    written = open_network(tmp_path / "theirs-export")
    assert written.spec == spec and written.preprocessing.width == 24
    assert written.lineage["classes"] == classes
    card = (tmp_path / "theirs-export" / "README.md").read_text()
    assert "does not say what it learnt from" in card and "background, benign, malignant" in card
    assert "softmax over the channels" in card


def test_wrong_settings_are_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--taps", "[a]", "--formats", "[safetensors]"]) == 2
    assert "taps must be left out where formats has no onnx" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--formats", "[onnx]"]) == 2
    assert main(["export", str(Path(tmp_path) / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_a_header_without_evaluations_has_no_results(masks):
    told, _ = run_onnx(masks, torch.zeros(1, 1, 32, 32))
    assert "model-index" not in card_header(told, ["safetensors"], [], False)
