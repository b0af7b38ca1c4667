"""Findings that one column of a table lists: spellings united, entries of several noticed."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from nakt_dist.errors import DatasetError
from nakt_dist.sources.chest import Problem
from nakt_dist.sources.csv_tables import quoted
from nakt_dist.sources.findings import KNOWN_FORMS, canonical_finding, finding_form

MOST_FINDINGS = 200
MOST_JOINED = 10
"""So many entries with another separator set their rows aside; more mean a wrong setting."""

UNITED = "findings united from several spellings"
NEARLY_ALIKE = "findings whose names are nearly alike, taken as several"
UNLISTED = "wanted findings that no row lists, so that all images count as without them"

_MOST_SPELLINGS = 10 * MOST_FINDINGS
_NEVER_IN_NAMES = ("|", ";", "\t", "\n")
_AT_TIMES_IN_NAMES = (",", "/", "+", "&", " and ", " - ", "  ")


class FindingCounter:
    """Gathers the findings of a column, cell by cell, before any is read.

    Args:
        wanted: the findings that settings ask for; empty for all that occur.
        separator: between the entries of a cell; ``""`` for one finding a cell.
        place: names the table and the column, for messages.
    """

    def __init__(self, wanted: Sequence[str], separator: str, place: str) -> None:
        self._wanted, self._separator, self._place = tuple(wanted), separator, place
        self._wanted_forms = frozenset(map(_form, wanted))
        self._spellings: dict[str, Counter[str]] = defaultdict(Counter)
        self._distinct = self._divided_cells = 0
        self._joined: Counter[str] = Counter()
        self._joined_example = ""

    def add(self, entries: Collection[str]) -> None:
        """Counts the entries of one cell.

        Raises:
            DatasetError: there are more than ``MOST_FINDINGS`` findings, or spellings by far.
        """
        self._divided_cells += len(entries) > 1
        for entry in entries:
            form = _form(entry)
            if self._wanted and form not in self._wanted_forms:
                self._count_joined(entry, 1, self._wanted_forms)
                continue
            self._distinct += entry not in self._spellings[form]
            self._spellings[form][entry] += 1
        if len(self._spellings) > MOST_FINDINGS or self._distinct > _MOST_SPELLINGS:
            first = min(min(spellings) for spellings in self._spellings.values())
            raise DatasetError(
                f"{self._place} lists more than {MOST_FINDINGS} different findings, such as "
                f"{quoted(first)}; set 'findings_separator' to what stands between them, or "
                "'finding_names' to those wanted"
            )

    def vocabulary(self) -> "ListedFindings":
        """Returns the findings wanted, or all that occur, sorted; found ones under one name each.

        That is the common name, or the spelling that most cells have.

        Raises:
            DatasetError: more than ``MOST_JOINED`` entries hold another separator, and more than
                there are cells that the one set divides.
        """
        names = self._wanted
        if not names:
            forms = self._spellings.keys()
            alone = {
                form: spellings
                for form, spellings in self._spellings.items()
                if not self._count_joined(min(spellings), spellings.total(), forms - {form})
            }
            names = tuple(sorted(map(_name, alone.values())))
        if self._joined.total() > max(MOST_JOINED, self._divided_cells):
            other, count = self._joined.most_common(1)[0]
            raise DatasetError(
                f"{self._place}: {count} entries hold {other!r}, such as "
                f"{quoted(self._joined_example)}, and 'findings_separator' is "
                f"{self._separator!r}, which divides {self._divided_cells} cells; set it to "
                f"{other!r}, or name these entries in 'finding_names' if each is one finding"
            )
        return ListedFindings(names, self._separator, *self._alike(names))

    def _count_joined(self, entry: str, count: int, known: Collection[str]) -> bool:
        other = other_separator(entry, known, self._separator)
        if other is None:
            return False
        self._joined[other] += count
        self._joined_example = self._joined_example or entry
        return True

    def _alike(self, names: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
        """Returns counts of findings spelt in several ways or never, each with an example."""
        found: dict[str, int] = {}
        examples: dict[str, str] = {}
        several = {name: self._spellings.get(_form(name), Counter()) for name in names}
        united = {name: sorted({*each, name}) for name, each in several.items() if len(each) > 1}
        if united:
            name, spellings = next(iter(united.items()))
            found[UNITED] = len(united)
            others = (quoted(each) for each in spellings if each != name)
            examples[UNITED] = f"{quoted(name)}, also written {', '.join(list(others)[:4])}"
        unlisted = [name for name in names if not several[name]]
        if unlisted:
            found[UNLISTED] = len(unlisted)
            examples[UNLISTED] = quoted(unlisted[0])
        nearly: dict[str, list[str]] = defaultdict(list)
        for name in names:
            letters = "".join(sign for sign in _form(name) if sign.isalnum())
            nearly[letters.removesuffix("s")].append(name)
        groups = [each for each in nearly.values() if len(each) > 1]
        if groups:
            found[NEARLY_ALIKE] = sum(map(len, groups))
            examples[NEARLY_ALIKE] = " and ".join(map(quoted, groups[0][:3]))
        return found, examples


class ListedFindings:
    """The vocabulary of a column that lists findings.

    Args:
        names: of the findings, in order.
        found: counts worth saying, by words.
        examples: a case of what such words count, by the words.
    """

    def __init__(
        self,
        names: Sequence[str],
        separator: str,
        found: Mapping[str, int],
        examples: Mapping[str, str],
    ) -> None:
        self.names, self.found, self.examples = tuple(names), found, examples
        self._separator = separator
        self._by_form = {_form(name): name for name in names}

    def read(self, entries: Collection[str]) -> tuple[Mapping[str, int], int, Problem | None]:
        """Returns the findings of a cell, how many entries are none, and what is wrong with it."""
        forms = {_form(entry): entry for entry in entries}
        for form in forms.keys() - self._by_form.keys():
            other = other_separator(forms[form], self._by_form, self._separator)
            if other is not None:
                detail = (
                    f"the entry {quoted(forms[form])} holds {other!r}, and 'findings_separator' is "
                    f"{self._separator!r}; write one separator throughout, or name the whole entry "
                    "in 'finding_names' if it is one finding"
                )
                return {}, 0, ("ambiguous_label", detail)
        findings = {name: int(form in forms) for form, name in self._by_form.items()}
        return findings, len(forms.keys() - self._by_form.keys()), None


def other_separator(entry: str, known: Collection[str], separator: str) -> str | None:
    """Returns what separates several findings in an entry, other than the separator; or None.

    ``|``, ``;``, a tab and a line break stand in no name. A comma, ``/``, ``+``, ``&``, "and", a
    dash and blanks may: they count where a part of the entry is a finding by itself. For blanks,
    and where settings say that a cell holds one finding (``""``), every part must be.

    Args:
        entry: of a cell, as published.
        known: forms of the findings that occur or are wanted.
    """
    for other in (*_NEVER_IN_NAMES, *_AT_TIMES_IN_NAMES):
        parts = [_form(part) for part in entry.split(other)]
        if other == separator or len(parts) < 2 or _form(entry) in KNOWN_FORMS:
            continue
        single = [part in known or part in KNOWN_FORMS for part in parts]
        some = any(single) if separator and other.strip() else all(single)
        if other in _NEVER_IN_NAMES or some:
            return other
    return None


def _form(name: str) -> str:
    return finding_form(canonical_finding(name))


def _name(spellings: Counter[str]) -> str:
    """Returns the common name of a finding, or the spelling that most cells have."""
    common = min(spellings, key=lambda spelling: (-spellings[spelling], spelling))
    return canonical_finding(common)
