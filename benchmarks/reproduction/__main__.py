"""Makes `docs/reproduction.md` again: its tables, the numbers of its prose, its figures.

    python -m benchmarks.reproduction [--a FOLDER] [--b FOLDER] [--beside] [--ran_on WORDS]

With a folder of the study (the --root of `nakt study configs/study/open_data_a.yaml`), its records
are collected into `benchmarks/results/open_data_a` first, whatever is done by then; what is not is
listed. With --beside what is committed stays, of a folder that is gone, and the new is set beside
it. Without a folder, the page is made from what is committed.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.reproduction.claims import Claim
from benchmarks.reproduction.claims_a import claims_of_a
from benchmarks.reproduction.claims_b import claims_of_b
from benchmarks.reproduction.collecting import collect_study
from benchmarks.reproduction.figures import draw_by_size, draw_claims, draw_curves, draw_dice
from benchmarks.reproduction.joining import join
from benchmarks.reproduction.page import fill
from benchmarks.reproduction.records import ABOUT, Records, read_records
from benchmarks.reproduction.tables import all_numbers, all_tables, verdict_of
from nakt_dist.cli import parse_config
from nakt_dist.errors import NaktError
from nakt_dist.runtime.files import write_bytes
from nakt_dist.stages.study import read_study

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reproduction.md"
FIGURES = "figures"
TITLES = {
    "reproduction-a-claims": "The figures that the claims of paper A hang on",
    "reproduction-a-dice": "Dice of students by transferal dataset and network",
    "reproduction-b-claims": "The figures that the claims of paper B hang on",
    "reproduction-b-sizes": "AUROC by number of training images",
    "reproduction-b-curves": "Cross-entropy on the validation images over the training",
}
Found = Mapping[str, Records | None]


def read_all(results: Path = RESULTS) -> dict[str, Records | None]:
    """Reads what is committed of both studies; None of one that is not collected yet."""
    folders = {name: results / f"open_data_{name}" for name in ("a", "b")}
    return {
        name: read_records(folder) if (folder / ABOUT).exists() else None
        for name, folder in folders.items()
    }


def judge(found: Found) -> tuple[Claim, ...]:
    """Returns every claim of both papers with its figures."""
    return *claims_of_a(found["a"]), *claims_of_b(found["b"])


def make_page(text: str, found: Found, figures: Iterable[str]) -> str:
    """Returns the page, filled from records.

    Args:
        figures: names of those that there are.
    """
    claims = judge(found)
    links = {name: f"![{title}]({FIGURES}/{name}.svg)" for name, title in TITLES.items()}
    shown = {
        name: links[name] if f"{name}.svg" in set(figures) else "*Not drawn yet: nothing is run.*"
        for name in TITLES
    }
    return fill(text, all_tables(claims, found) | shown, all_numbers(claims, found))


def draw_figures(found: Found) -> dict[str, bytes]:
    """Returns the figures that there are, by name of the file."""
    claims, drawn = judge(found), {}
    for name, records in found.items():
        if records is None:
            continue
        about = records.digest
        own = [claim for claim in claims if claim.paper.lower() == name]
        verdict = partial(verdict_of, found=found)
        drawn[f"reproduction-{name}-claims.svg"] = draw_claims(own, about, verdict)
        if name == "a":
            drawn["reproduction-a-dice.svg"] = draw_dice(records, about)
        else:
            drawn["reproduction-b-sizes.svg"] = draw_by_size(records, about)
            drawn["reproduction-b-curves.svg"] = draw_curves(records, about)
    return {name: svg for name, svg in drawn.items() if svg is not None}


def main(words: list[str] | None = None) -> int:
    """Collects what is given, and makes the page; returns 1 if it cannot."""
    parser = argparse.ArgumentParser("python -m benchmarks.reproduction", description=__doc__)
    parser.add_argument("--a", type=Path, metavar="FOLDER", help="of study A")
    parser.add_argument("--b", type=Path, metavar="FOLDER", help="of study B")
    parser.add_argument("--ran_on", metavar="WORDS", help="kind of machine, where not this one")
    parser.add_argument("--beside", action="store_true", help="keep what is committed, too")
    given = parser.parse_args(words)
    try:
        for name, folder in (("a", given.a), ("b", given.b)):
            if folder is not None:
                _collect(folder, f"open_data_{name}", given.ran_on, given.beside)
        found = read_all()
        figures = draw_figures(found)
        page = make_page(PAGE.read_text(encoding="utf-8"), found, figures)
        for name, svg in figures.items():
            (PAGE.parent / FIGURES).mkdir(exist_ok=True)
            write_bytes(PAGE.parent / FIGURES / name, svg)
        write_bytes(PAGE, page.encode())
    except NaktError as error:
        print(error, file=sys.stderr)
        return 1
    for claim in judge(found):
        print(f"{claim.paper} {claim.key}: {verdict_of(claim, found)}")
    return 0


def _collect(folder: Path, name: str, ran_on: str | None, beside: bool) -> None:
    words = [f"--config={ROOT}/configs/study/{name}.yaml", f"--root={folder}", "--data=data"]
    plan = read_study(parse_config("study", words)).plan
    records = collect_study(folder, plan, _commit(), ran_on)
    if beside:
        records = join(read_records(RESULTS / name), records)
    records.write(RESULTS / name)
    about = records.about
    print(f"{folder.name}: {about['done']} of {about['planned']} evaluations; not run yet:")
    print("\n".join(f"  {each}" for each in sorted(about["not_run_yet"])) or "  nothing")
    print("\n".join(f"  left out: {each}" for each in about["left_out"]))


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
