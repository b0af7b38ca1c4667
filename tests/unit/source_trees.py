"""Small trees of empty files, since scanning reads no pixels, and views of a listing."""

from pathlib import Path

from nakt_dist.sources import SourceListing, SourceRecord


def write_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def by_name(listing: SourceListing) -> dict[str, SourceRecord]:
    names = [record.name for record in listing.records]
    assert names == sorted(set(names))
    return {record.name: record for record in listing.records}


def reasons(listing: SourceListing) -> dict[str, str]:
    return {r.name: r.problem[0] for r in listing.records if r.problem}


def mask_names(record: SourceRecord) -> list[str]:
    return [mask.name for mask in record.masks]
