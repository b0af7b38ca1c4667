"""The vocabulary of chest findings, label sets and what unsure labels count as."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading.targets import name_outputs
from nakt_dist.sources.findings import (
    CHESTXRAY14_FINDINGS,
    CHEXPERT_FINDINGS,
    LABEL_SETS,
    LabelPolicy,
    canonical_finding,
    resolve_label_names,
    targets,
)

NAN = np.nan
USES = ("zero", "one", "ignore")


class TestVocabulary:
    def test_sizes_and_what_the_datasets_share(self) -> None:
        sizes = {name: len(set(labels)) for name, labels in LABEL_SETS.items()}
        assert sizes == {
            "chexpert": 14,
            "mimic_cxr": 14,
            "chestxray14": 14,
            "chestxray14_with_no_finding": 15,
            "shared": 8,
            "torchxrayvision": 18,
        }
        both = set(CHEXPERT_FINDINGS) & set(LABEL_SETS["chestxray14_with_no_finding"])
        assert set(LABEL_SETS["shared"]) == both

    def test_sets_are_in_the_order_of_their_tables_as_the_outputs_of_others_are(self) -> None:
        tables = {
            "chexpert": "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung "
            "Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,"
            "Pleural Other,Fracture,Support Devices",
            "mimic_cxr": "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,"
            "Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,"
            "Pneumonia,Pneumothorax,Support Devices",
        }
        for name, columns in tables.items():
            assert name_outputs(name, 14, "teachers.labels") == tuple(columns.split(","))

    def test_published_spellings(self) -> None:
        assert canonical_finding("Effusion") == "Pleural Effusion"
        assert canonical_finding("Pleural_Thickening") == "Pleural Thickening"
        assert canonical_finding("Edema") == "Edema"


class TestResolveLabelNames:
    def test_all_a_set_or_a_list(self) -> None:
        available = LABEL_SETS["chestxray14_with_no_finding"]
        assert resolve_label_names(None, available) == available
        assert resolve_label_names("chestxray14", available) == CHESTXRAY14_FINDINGS
        assert resolve_label_names("shared", CHEXPERT_FINDINGS) == LABEL_SETS["shared"]
        assert resolve_label_names(["Mass", "Edema"], available) == ("Mass", "Edema")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ("chexprt", "no label set 'chexprt', did you mean 'chexpert'"),
            ("Edema", r"single finding as a list: \['Edema'\]"),
            ("chestxray14", "holds Infiltration, Mass, Nodule, .*which this dataset does not"),
            (["Effusion"], "no label 'Effusion', did you mean 'Pleural Effusion'"),
            (["Edema", "Edema"], "'Edema' is listed twice"),
            ([], "list of labels is empty"),
        ],
    )
    def test_refused(self, names: str | list[str], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            resolve_label_names(names, CHEXPERT_FINDINGS)

    def test_a_dataset_without_findings(self) -> None:
        for names in (None, "shared", ["Edema"]):
            with pytest.raises(ConfigurationError, match="labels no findings"):
                resolve_label_names(names, ())


class TestTargets:
    FINDINGS = ({"Edema": 1, "Mass": -1}, {"Edema": 0, "Mass": None}, {}, None)

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            (LabelPolicy(), [[1, 0], [0, 0], [0, 0], [NAN, NAN]]),
            (LabelPolicy(uncertain="one"), [[1, 1], [0, 0], [0, 0], [NAN, NAN]]),
            (LabelPolicy(uncertain="ignore"), [[1, NAN], [0, 0], [0, 0], [NAN, NAN]]),
            (LabelPolicy(blank="one"), [[1, 0], [0, 1], [1, 1], [NAN, NAN]]),
            (LabelPolicy("one", "ignore"), [[1, 1], [0, NAN], [NAN, NAN], [NAN, NAN]]),
            (LabelPolicy({"default": "one", "Edema": "zero"}), [[1, 1], [0, 0], [0, 0], [NAN] * 2]),
            (LabelPolicy({"default": "one", "Mass": "zero"}), [[1, 0], [0, 0], [0, 0], [NAN] * 2]),
        ],
    )
    def test_by_hand(self, policy: LabelPolicy, expected: list[list[float]]) -> None:
        values = targets(self.FINDINGS, ("Edema", "Mass"), policy)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected)

    @given(
        st.lists(st.dictionaries(st.sampled_from(CHEXPERT_FINDINGS), st.sampled_from([1, 0, -1]))),
        st.sampled_from(USES),
        st.sampled_from(USES),
    )
    def test_certain_labels_never_change(
        self, findings: list[dict[str, int]], uncertain: str, blank: str
    ) -> None:
        values = targets(findings, CHEXPERT_FINDINGS, LabelPolicy(uncertain, blank))
        assert values.shape == (len(findings), 14)
        use = {"zero": 0.0, "one": 1.0, "ignore": NAN}
        for labels, row in zip(findings, values, strict=True):
            expected = [
                {1: 1.0, 0: 0.0, -1: use[uncertain], None: use[blank]}[labels.get(name)]
                for name in CHEXPERT_FINDINGS
            ]
            np.testing.assert_array_equal(row, expected)

    @pytest.mark.parametrize("value", [2, "1", 0.5, [1]])
    def test_other_values_are_refused(self, value: object) -> None:
        with pytest.raises(DatasetError, match=r"image 1 hold .*Edema.*expected 1, 0, -1"):
            targets([{}, {"Edema": value}], ("Edema",), LabelPolicy())

    def test_unknown_policies_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="'blank' is 'ones', did you mean 'one'"):
            LabelPolicy(blank="ones")
