"""Support devices: pacemakers, tubes and lines, drawn along the anatomy they lie in."""

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.frame import Frame, Pen

# which devices come together; the first numbers choose among the rows
_SETS = (
    ("pacemaker",), ("central line",), ("central line", "tracheal tube", "stomach tube"),
    ("tracheal tube", "stomach tube"), ("central line", "chest tube"), ("chest tube",),
)  # fmt: skip
_WIDTHS = {
    "pacemaker": 0.016, "central line": 0.014, "tracheal tube": 0.026, "stomach tube": 0.016,
    "chest tube": 0.028,
}  # fmt: skip
_JITTER, _JITTER_OF_TRACHEA = 0.012, 0.006

Path = list[tuple[float, float]]


def draw_devices(
    generator: Generator, frame: Frame, sign: Sign, is_frontal: bool, side: int
) -> np.ndarray:
    """Draws the devices of one study.

    Args:
        generator: source of random numbers for their exact course.
        sign: the finding, whose form says which devices there are.
        is_frontal: whether to draw them as seen from the front or from the side.
        side: where a chest tube lies, -1 the patient's right, 1 the left.

    Returns:
        Float32 (height, width), 0 to 1.
    """
    pen = frame.pen()
    for device in _SETS[int(sign.form * len(_SETS))]:
        if is_frontal:
            path = _frontal_path(generator, pen, device, side)
        else:
            path = _lateral_path(generator, pen, device)
        size = _JITTER_OF_TRACHEA if device == "tracheal tube" else _JITTER
        moved = np.array(path) + generator.normal(0, size, (len(path), 2))
        course = curve([tuple(point) for point in moved.tolist()])
        pen.line(course, _WIDTHS[device], 0.5 + 0.5 * sign.severity)
    return pen.field()


def curve(points: Path, steps: int = 14) -> Path:
    """Returns a smooth path through (across, down) points, `steps` for each pair of them."""
    knots = np.array([points[0], *points, points[-1]], dtype=np.float64)
    along = (np.arange(steps) / steps)[:, None]
    path = []
    for before, start, end, after in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        bend = 2 * before - 5 * start + 4 * end - after
        twist = 3 * (start - end) + after - before
        rise = end - before
        path.append(0.5 * (2 * start + rise * along + bend * along**2 + twist * along**3))
    return [tuple(point) for point in np.concatenate([*path, knots[-1:]]).tolist()]


def _frontal_path(generator: Generator, pen: Pen, device: str, side: int) -> Path:
    """Returns the usual course of a device, of a pacemaker its lead, as (across, down) points."""
    match device:
        case "pacemaker":
            return _pacemaker(generator, pen)
        case "central line":
            if generator.random() < 0.5:
                return [(-0.17, -0.25), (-0.15, -0.05), (-0.10, 0.15), (-0.105, 0.42)]
            return [(-0.5, 0.0), (-0.3, 0.06), (-0.12, 0.14), (-0.105, 0.45)]
        case "tracheal tube":
            return [(0.0, -0.3), (0.005, -0.1), (0.0, generator.uniform(0.12, 0.26))]
        case "stomach tube":
            return [(0.03, -0.3), (0.02, 0.2), (0.03, 0.7), (0.08, 1.02), (0.22, 1.18), (0.34, 1.2)]
    path = [(0.78, 0.72), (0.5, 0.62), (0.4, 0.4), (0.33, generator.uniform(0.1, 0.25))]
    return [(side * x, y) for x, y in path]


def _pacemaker(generator: Generator, pen: Pen) -> Path:
    """Draws the box under the skin and returns the course of its lead."""
    across, down = generator.uniform(0.38, 0.46), generator.uniform(0.10, 0.18)
    turn = generator.uniform(0, np.pi / 2)
    corners = turn + np.linspace(0, 2 * np.pi, 13)[:-1]
    radius = 0.062 * (1 + 0.12 * np.cos(4 * (corners - turn)))
    box = zip(
        (across + radius * np.cos(corners)).tolist(),
        (down + 0.85 * radius * np.sin(corners)).tolist(),
        strict=True,
    )
    pen.polygon(list(box), 0.9)
    return [(across, down - 0.05), (0.2, 0.06), (-0.06, 0.22), (-0.11, 0.6), (0.16, 0.9)]


def _lateral_path(generator: Generator, pen: Pen, device: str) -> Path:
    """Returns the same as `_frontal_path`, as seen from the side."""
    match device:
        case "pacemaker":
            pen.polygon([(-0.30, 0.08), (-0.25, 0.07), (-0.29, 0.22), (-0.34, 0.21)], 0.9)
            return [(-0.27, 0.08), (-0.05, 0.12), (-0.02, 0.5), (-0.18, 0.9)]
        case "central line":
            return [(-0.12, -0.25), (-0.10, 0.05), (-0.05, 0.25), (-0.04, 0.45)]
        case "tracheal tube":
            return [(-0.06, -0.3), (-0.01, -0.05), (0.03, generator.uniform(0.15, 0.28))]
        case "stomach tube":
            return [(-0.02, -0.3), (0.08, 0.1), (0.12, 0.6), (0.04, 1.02), (-0.12, 1.14)]
    return [(0.0, 0.85), (0.1, 0.6), (0.2, 0.3), (0.15, 0.12)]
