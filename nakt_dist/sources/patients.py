"""Patients whose names are written in several ways, and how such names are told to be one."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from nakt_dist.sources.listing import SourceListing, SourceRecord

SPELT_APART = "patients whose names differ only in letter case, blanks or leading zeros"
SPLIT_APART = "of these patients in several official splits"
"""Under these words ``SourceListing.found`` counts such patients."""

_BLANKS_IN_NUMBERS = re.compile(r"(?<=\d)\s+(?=\d)")
_LEADING_ZEROS = re.compile(r"(?<!\d)(?<!\d\.)0+(?=\d)")
_WHOLE_NUMBER = re.compile(r"(\d+)\.0+")


def patient_identity(name: str) -> str:
    """Returns the form that all spellings of one patient's name share.

    Alike are names that differ in letter case, in the Unicode form of a letter (NFC or NFD), in
    blanks and signs without a width, in the kind of dash, in zeros before a number and in ``.0``
    after a whole one: ``P01``, ``p1`` and ``p 001`` are one; ``1 11`` and ``11 1`` are two.

    Splits must group by this form and not by the name, so that a patient who is spelt in two ways
    stays in one split. A pseudonym (``deidentification``) tells nothing of it any more: take the
    form of the published name.
    """
    if name.isascii() and name.isalnum() and "0" not in name:  # nothing but its case can vary
        return name.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kinds = [(sign, unicodedata.category(sign)) for sign in text]
    shown = ["-" if kind == "Pd" else sign for sign, kind in kinds if kind != "Cf"]
    words = _BLANKS_IN_NUMBERS.sub("\0", "".join(shown).strip())
    joined = "".join(words.split()).replace("\0", " ")
    whole = _WHOLE_NUMBER.fullmatch(joined)
    return _LEADING_ZEROS.sub("", whole[1] if whole else joined)


def spelt_apart(records: Iterable[SourceRecord]) -> list[tuple[str, ...]]:
    """Returns the names of each patient who has several, sorted.

    Args:
        records: as a layout lists them; those without a file name no patient here.
    """
    names = {
        record.patient_id
        for record in records
        if record.patient_id is not None
        and (record.problem is None or record.problem[0] != "missing_image")
    }
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings[patient_identity(name)].append(name)
    return sorted(tuple(sorted(each)) for each in spellings.values() if len(each) > 1)


def count_spelt_apart(listing: SourceListing) -> SourceListing:
    """Returns the listing with the patients whose names are alike counted in ``found``."""
    alike = spelt_apart(listing.records)
    if not alike:
        return listing
    found = {SPELT_APART: len(alike)}
    examples = {SPELT_APART: " and ".join(map(ascii, alike[0][:3]))}
    splits: dict[str, set[str]] = defaultdict(set)
    for record in listing.records:
        if record.patient_id is not None and record.official_split is not None:
            splits[record.patient_id].add(record.official_split)
    apart = [names for names in alike if len(set().union(*(splits[name] for name in names))) > 1]
    if apart:
        found[SPLIT_APART] = len(apart)
        examples[SPLIT_APART] = " and ".join(map(ascii, apart[0][:3]))
    return replace(
        listing, found={**listing.found, **found}, examples={**listing.examples, **examples}
    )
