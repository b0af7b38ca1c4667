"""The claims of paper B, "Evaluating Knowledge Transfer in the Neural Network …"."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.reproduction.claims import Claim, Printed, Row
from benchmarks.reproduction.contrasts import Estimate, pair
from benchmarks.reproduction.contrasts_auroc import difference_of_auroc, later_least_loss
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import Pairs
from nakt_dist.report import paper
from nakt_dist.signals.kind import TRANSFER_LEARNING, Kind

ATTENTION = Kind(("attention",)).value
PAPERS_REDUCTION = '"attention.reduction": "eq2"'
MAIN = ("attention", "attention-imagenet")
"""Names of the study's axis ``method``; its other reductions have rows in the table of students."""
IN_DOMAIN, IMAGENET = "MIMIC-CXR", "ImageNet"
"""The paper's teachers."""


def claims_of_b(records: Records | None) -> tuple[Claim, ...]:
    """Returns every claim with the figures that there are."""
    found = _Students(records)
    return _few(found), _overfitting(found), _in_domain(found), _small(found)


class _Students:
    """The students of transfer learning, and those that follow a teacher's attention."""

    def __init__(self, records: Records | None) -> None:
        self.records = records
        runs = [] if records is None else [run for run in records.runs if run.role == "student"]
        self.plain = [
            run for run in runs
            if run.method == TRANSFER_LEARNING.value and run.parts == "all layers"
        ]  # fmt: skip
        following = [run for run in runs if run.method == ATTENTION and is_main(run)]
        self.by_imagenet = [run for run in following if knows_imagenet_alone(run)]
        self.in_domain = [run for run in following if not knows_imagenet_alone(run)]
        self.sizes = sorted({run.samples for run in (*self.plain, *following)})
        self.networks = sorted({(run.parameters, run.network) for run in following})

    def gains(self, kept: Callable[[Run], bool] = lambda _: True) -> Pairs:
        """Pairs of attention transfer from the domain's own teacher, and transfer learning."""
        return _pairs(filter(kept, self.in_domain), filter(kept, self.plain))

    def estimate(self, pairs: Pairs, less: Pairs = ()) -> Estimate | None:
        return None if self.records is None else difference_of_auroc(self.records, pairs, less)


def is_main(run: Run) -> bool:
    """Says whether it follows a teacher as the study's main rows do; else as the paper does."""
    chosen = run.axes.get("method")
    return chosen in MAIN if chosen is not None else PAPERS_REDUCTION in run.settings


def knows_imagenet_alone(run: Run) -> bool:
    """Says whether the teacher is a network of photographs."""
    return paper.chest_dataset_name(run.teacher_learnt) == IMAGENET


def _pairs(first: Iterable[Run], second: Iterable[Run]) -> Pairs:
    return pair(first, second, _same)


def _same(run: Run) -> tuple[Any, ...]:
    return run.tested_on, run.network, run.start, run.learnt, run.samples, run.seed


def _but_size(run: Run) -> tuple[Any, ...]:
    return run.tested_on, run.network, run.start, run.seed


def _few(found: _Students) -> Claim:
    of_sizes = {size: found.gains(lambda run, n=size: run.samples == n) for size in found.sizes}
    fewest, most = (min(of_sizes), max(of_sizes)) if of_sizes else (0, 0)
    least = of_sizes.get(fewest, ())
    rest = of_sizes.get(most, ()) if most > fewest else ()
    both = {_but_size(ours) for ours, _ in least} & {_but_size(ours) for ours, _ in rest}
    contrast = [[each for each in side if _but_size(each[0]) in both] for side in (least, rest)]
    return Claim(
        key="few",
        paper="B",
        words="Attention transfer helps, and most where labels are few",
        where="section IV, table 2",
        measure="Mean AUROC of attention transfer from the domain's own teacher less that of "
        "transfer learning, in points, over all networks and first weights",
        unit="AUROC, points",
        threshold=0.0,
        drawn="patients",
        rows=(
            Row("fewest", f"{fewest} images" if fewest else "Fewest images",
                found.estimate(least), _printed_gain(1000)),
            Row("contrast", "Fewest images less all images",
                found.estimate(*contrast) if both else None,
                _printed_gain(1000, less=178_000)),
            *(
                Row(f"size-{size}", f"{size} images", found.estimate(pairs),
                    _printed_gain(178_000) if size == most else (), decides=False)
                for size, pairs in of_sizes.items() if size != fewest
            ),
        ),
    )  # fmt: skip


def _gain(samples: int, network: str = "") -> float:
    """Returns what the paper's attention transfer gives, over networks and first weights."""
    found = [
        each for each in paper.all_auroc()
        if each.table == 2 and each.samples == samples and network in each.network
        and each.trainable != 2.7  # the last layers alone
    ]  # fmt: skip
    ours, theirs = (
        np.mean([each.mean for each in found if each.method == method])
        for method in ("attention transfer", "transfer learning")
    )
    return float(ours - theirs)


def _printed_gain(samples: int, less: int = 0) -> tuple[Printed, ...]:
    value = _gain(samples) - (_gain(less) if less else 0)
    what = f"{samples:,} less {less:,}" if less else f"{samples:,}"
    return ((value, f"{what} images"),)


def _overfitting(found: _Students) -> Claim:
    pairs = found.gains()
    records = found.records
    return Claim(
        key="later",
        paper="B",
        words="Attention transfer delays overfitting",
        where="section IV, figure 3",
        measure="By how much later the cross-entropy on the validation images is least, in % of "
        "the training, attention transfer against transfer learning",
        unit="% of the training",
        threshold=0.0,
        drawn="pairs of trainings",
        counted="pairs",
        rows=(
            Row("all", "All students", records and later_least_loss(records, pairs)),
            *(
                Row(f"size-{size}", f"{size} images",
                    records and later_least_loss(
                        records, [each for each in pairs if each[0].samples == size]),
                    decides=False)
                for size in found.sizes
            ),
        ),
    )  # fmt: skip


def _in_domain(found: _Students) -> Claim:
    def pairs(size: int) -> Pairs:
        sides = ([run for run in side if run.samples == size]
                 for side in (found.in_domain, found.by_imagenet))  # fmt: skip
        return _pairs(*sides)

    fewest = found.sizes[:1]
    return Claim(
        key="domain",
        paper="B",
        words="A teacher of the same domain is better than one of ImageNet, where labels are few",
        where="section IV, table 3",
        measure="Mean AUROC of attention transfer from the domain's own teacher less that from "
        "ImageNet's, in points, over all networks and first weights",
        unit="AUROC, points",
        threshold=0.0,
        drawn="patients",
        rows=(
            *(
                Row("fewest" if size in fewest else f"size-{size}", f"{size} images",
                    found.estimate(pairs(size)),
                    _printed_domain(1000 if size in fewest else 178_000)
                    if size in (found.sizes[0], found.sizes[-1]) else (),
                    decides=size in fewest)
                for size in found.sizes
            ),
            *(() if found.sizes
              else (Row("fewest", "Fewest images", None, _printed_domain(1000)),)),
        ),
    )  # fmt: skip


def _printed_domain(samples: int) -> tuple[Printed, ...]:
    found = [
        each for each in paper.all_auroc()
        if each.table in (2, 3) and each.samples == samples and each.method == "attention transfer"
    ]  # fmt: skip
    ours, theirs = (
        np.mean([each.mean for each in found if each.teacher == teacher])
        for teacher in (IN_DOMAIN, IMAGENET)
    )
    return ((float(ours - theirs), f"{samples:,} images"),)


def _small(found: _Students) -> Claim:
    def row(number: int, network: str) -> Row:
        pairs = found.gains(lambda run: run.network == network)
        printed = _printed_network(network)
        return Row(f"network-{number}", network, found.estimate(pairs), printed, decides=not number)

    rows = [row(number, network) for number, (_, network) in enumerate(found.networks)]
    return Claim(
        key="small",
        paper="B",
        words="Small students gain, too",
        where="section V, table 2",
        measure="Mean AUROC of attention transfer from the domain's own teacher less that of "
        "transfer learning, in points, over all sizes and first weights; the smallest network "
        "decides",
        unit="AUROC, points",
        threshold=0.0,
        drawn="patients",
        rows=tuple(rows) or (Row("network-0", "The smallest network", None,
                                 _printed_network("DenseNet-40")),),
    )  # fmt: skip


def _printed_network(network: str) -> tuple[Printed, ...]:
    if network not in {each.network for each in paper.all_auroc()}:
        return ()
    sizes: Sequence[int] = sorted({each.samples for each in paper.all_auroc() if each.table == 2})
    value = float(np.mean([_gain(size, network) for size in sizes]))
    return ((value, f"{network}, table 2"),)
