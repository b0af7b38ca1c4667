"""Dataset cards: the shipped ones are right, and wrong ones say what is wrong."""

from pathlib import Path

import pytest
import yaml

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources import SOURCES, SourceListing, SourceRecord
from nakt_dist.sources.cards import (
    CountComparison,
    DatasetCard,
    compare_counts,
    count_listing,
    load_card,
)

CARDS = Path(__file__).resolve().parents[2] / "shards" / "cards"


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_cards(path: Path) -> None:
    card = load_card(path, CARDS)
    assert card == load_card(path.stem, CARDS)
    assert card.name == path.stem
    assert "images" in card.expected_counts
    total = card.expected_counts["images"]
    classes = [n for what, n in card.expected_counts.items() if what.startswith("class ")]
    assert not classes or sum(filter(None, classes)) == total


def test_every_layout_names_a_card_of_its_own() -> None:
    for source in SOURCES.values():
        assert source.card is None or load_card(source.card, CARDS).layout == source.name


def test_counts_beside_the_cards() -> None:
    image = Path("unused")
    records = [
        SourceRecord("a", image, masks=(image,), stratum="benign"),
        SourceRecord("b", image, stratum="benign", problem=("missing_mask", "")),
        SourceRecord("c", image, problem=("missing_image", "")),
        SourceRecord("d", image, official_split="test"),
    ]
    listing = SourceListing(records, left_out={"class normal": 4, "official split test": 2})
    assert count_listing(listing) == {
        "class benign": 2,
        "class normal": 4,
        "images": 9,
        "images with a mask": 1,
        "official split test": 3,
    }
    comparison = compare_counts(load_card("busi", CARDS), listing)
    assert comparison[0] == CountComparison("images", 780, 9)
    assert comparison[2] == CountComparison("class malignant", 210, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tittle": "x"}, "unknown field 'tittle', did you mean 'title'"),
        ({"layout": "bussi"}, "did you mean 'busi'"),
        ({"licence": None}, "'licence' in the card .* is None; expected text"),
        ({"labels": "benign"}, "expected a list of names"),
        ({"labels": [True]}, "expected a list of names"),
        ({"expected_counts": {"images": "780"}}, "expected whole numbers or null"),
        ({"expected_counts": {"images": True}}, "expected whole numbers or null"),
    ],
)
def test_wrong_fields(tmp_path: Path, change: dict, message: str) -> None:
    content = yaml.safe_load((CARDS / "busi.yaml").read_text()) | change
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match=message):
        load_card(path, CARDS)


def test_absent_and_unreadable_cards(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no dataset card 'bussi', did you mean 'busi'"):
        load_card("bussi", CARDS)
    path = tmp_path / "card.yaml"
    for text, message in (
        ("a: [", "cannot be read"),
        ("text", "holds no fields"),
        ("title: x", "lacks the field 'modality'"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            load_card(path, CARDS)


def test_what_a_card_does_not_know_is_not_compared(tmp_path):
    card = DatasetCard(
        "own", "Own", "ultrasound", "masks", "image_folder", "here", "none", "none",
        expected_counts={"images": None, "class benign": 3},
    )  # fmt: skip
    listing = SourceListing((), {})
    assert compare_counts(card, listing) == [CountComparison("class benign", 3, 0)]
