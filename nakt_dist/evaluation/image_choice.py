"""Which images an attention sheet shows, and which other image each is compared with."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nakt_dist.evaluation.resampling import number_patients


def choose_images(positive: np.ndarray, count: int, seed: int) -> list[int]:
    """Chooses images so that each finding's positives come in turn.

    Args:
        positive: bool (N, K), which image has which finding; K may be 0.
        count: how many images; all N where it is more.
        seed: of the order among equals; a smaller choice is part of a larger one.

    Returns:
        Row numbers: the images chosen for the first finding, for the second, and so on, then
        those that had to fill up.
    """
    images, findings = positive.shape
    order = np.random.Generator(np.random.PCG64(seed)).permutation(images)
    chosen: dict[int, int] = {}  # image -> the finding it was chosen for
    while len(chosen) < min(count, images):
        before = len(chosen)
        for finding in range(findings):
            candidates = (row for row in order if positive[row, finding] and row not in chosen)
            row = next(candidates, None)
            if row is not None and len(chosen) < count:
                chosen[int(row)] = finding
        if len(chosen) == before:  # no positive is left
            rest = [int(row) for row in order if row not in chosen]
            chosen.update((row, findings) for row in rest[: count - len(chosen)])
    return sorted(chosen, key=chosen.__getitem__)


def choose_other_images(
    patients: Sequence[str | None], views: Sequence[str | None], seed: int
) -> list[int | None]:
    """Chooses for each image one of another patient, of the same view where there is any.

    Images of one patient look alike, and so do those of one view; an image of the same patient
    would say less about what the maps of all images share, one of another view other things.

    Args:
        patients: of each image; None where unknown, which counts as a patient of its own.
        views: of each image, such as ``"frontal"``; None where unknown.

    Returns:
        Row numbers; None where all images are of one patient.
    """
    owner = number_patients(patients)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(owner))
    of_view: dict[str | None, list[int]] = defaultdict(list)
    for row in order:
        of_view[views[row]].append(int(row))
    chosen = _pair(order.tolist(), owner)
    for rows in of_view.values():
        chosen |= _pair(rows, owner)  # where it has two patients: better than any view
    return [chosen.get(row) for row in range(len(owner))]


def _pair(rows: Sequence[int], owner: np.ndarray) -> dict[int, int]:
    """Pairs rows with rows of the patients that come next, in a circle; none for one patient."""
    rank = {patient: place for place, patient in enumerate(dict.fromkeys(owner[list(rows)]))}
    circle = sorted(rows, key=lambda row: rank[owner[row]])  # each patient's rows side by side
    counts = np.bincount([rank[owner[row]] for row in rows])
    pairs: dict[int, int] = {}
    start = 0
    for count in counts.tolist():
        end, others = start + count, len(circle) - count
        for place in range(count if others else 0):
            pairs[circle[start + place]] = circle[(end + place % others) % len(circle)]
        start = end
    return pairs
