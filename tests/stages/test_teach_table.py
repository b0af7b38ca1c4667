"""A table of what a network of others says becomes pseudo-findings, and is learnt from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nakt_dist.config import FindingsTableConfig, LabelConfig, LearntImagesConfig, NetworkCardConfig
from nakt_dist.config.teaching import TeachConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.shards.pseudo_findings import UNITS, PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import teach, train
from tests.datasets import make_chest_dataset
from tests.recipes import file_hashes, train_config

CARD = NetworkCardConfig("bsd-3-clause", [LearntImagesConfig("chestxray14")])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"))


def names_of(dataset: Path) -> list[str]:
    return [Path(each).name for each in IndexedShards(dataset).column("source").to_pylist()]


def write_table(path: Path, rows: Sequence[Sequence[Any]], header: str = "") -> Path:
    lines = [header or "Image Index,p_Effusion,p_Nodule,p_Unheard of,who"]
    path.write_text("\n".join([*lines, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def config_of(table: Path, dataset: Path, output: Path, prefix: str = "p_") -> TeachConfig:
    answers = FindingsTableConfig(str(table), "CheXNet", "Image Index", CARD, prefix)
    return TeachConfig(str(dataset), str(output), table=answers, device="cpu", threads=1)


def test_its_probabilities_are_learnt_and_of_other_images_nothing(
    dataset: Path, tmp_path: Path
) -> None:
    names = names_of(dataset)
    told = np.linspace(0, 1, 20).reshape(10, 2)
    rows = [
        [f"images/{name}", *values, 0.5, "x"] for name, values in zip(names, told, strict=False)
    ]
    rows[0][1] = ""
    table = write_table(tmp_path / "answers.csv", [["elsewhere.png", 1, 1, 1, "x"], *rows])
    teach.run(config_of(table, dataset, tmp_path / "taught"))
    found = PseudoFindings.open(tmp_path / "taught", IndexedShards(dataset))
    assert found.manifest.findings == ("Pleural Effusion", "Nodule")
    expected = np.full((len(names), 2), np.nan)
    expected[:10], expected[0, 0] = told, np.nan
    np.testing.assert_allclose(found.probability, expected, atol=0.6 / UNITS)
    (teacher,) = found.manifest.teachers
    assert read_lineage(teacher["lineage"], lenient=True).learnt.dataset == "chestxray14"
    before = file_hashes(tmp_path / "taught")
    (tmp_path / "taught" / "pseudo-000000.parquet").unlink()
    teach.run(config_of(table, dataset, tmp_path / "taught"))
    assert file_hashes(tmp_path / "taught") == before
    learnt = train_config(tmp_path / "run", dataset)
    data = replace(learnt.data, splits=None, pseudo_labels=str(tmp_path / "taught"))
    record = train.run(
        replace(
            learnt, task="classification", model=ModelSpec("densenet40", 3), data=data,
            validation=None, labels=LabelConfig(["Nodule"]),
        )
    )  # fmt: skip
    assert record.details["lineage"]["trained_on"]["samples"] == 10
    assert record.details["lineage"]["trained_on"]["teachers"][0]["name"] == "CheXNet"


@pytest.mark.parametrize(
    ("rows", "header", "prefix", "message"),
    [
        ([["other.png", 0.5]], "Image Index,p_Nodule", "p_", "names none of the"),
        ([["{first}", 1.5]], "Image Index,p_Nodule", "p_", "'1.5' in column 'p_Nodule', exp"),
        ([["{first}", "high"]], "Image Index,p_Nodule", "p_", "line 2 has 'high'"),
        ([["{first}", "nan"]], "Image Index,p_Nodule", "p_", "line 2 has 'nan'"),
        ([["{first}", "0_1"]], "Image Index,p_Nodule", "p_", "line 2 has '0_1'"),
        ([["{first}", " inf"]], "Image Index,p_Nodule", "p_", "line 2 has 'inf'"),
        ([["{first}", "1e400"]], "Image Index,p_Nodule", "p_", "line 2 has '1e400'"),
        ([["{first}", "٠.٥"]], "Image Index,p_Nodule", "p_", "expected a probability"),
        ([["{first}", 0.5], ["a/{first}", 0.5]], "Image Index,p_Nodule", "p_", "line 3: .* twice"),
        ([["{first}", 0.5]], "Image Index,p_Nodule", "prob_", "Set table.prefix"),
        ([["{first}", 0.5, 0.5]], "Image Index,Effusion,Pleural Effusion", "", "one for each"),
        ([["{first}", 0.5]], "file,p_Nodule", "p_", "Image Index"),
    ],
)  # fmt: skip
def test_another_table_is_refused(
    dataset: Path, tmp_path: Path, rows: list[list[Any]], header: str, prefix: str, message: str
) -> None:
    first = names_of(dataset)[0]
    filled = [[str(cell).format(first=first) for cell in row] for row in rows]
    table = write_table(tmp_path / "answers.csv", filled, header)
    with pytest.raises(DatasetError, match=message):
        teach.run(config_of(table, dataset, tmp_path / "taught", prefix))


def test_a_table_that_is_absent_or_beside_teachers_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "absent.csv", dataset, tmp_path / "taught")
    with pytest.raises(DatasetError, match="no such file"):
        teach.run(config)
    with pytest.raises(ConfigurationError, match="at least one teacher, or left out"):
        replace(config, table=None)
    with pytest.raises(ConfigurationError, match="left out with a table"):
        replace(config, classes=["background", "lesion"])
