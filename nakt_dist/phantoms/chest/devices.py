"""Support devices: pacemakers, tubes and lines, drawn along the anatomy they lie in."""

import numpy as np

from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.frame import Frame, Pen

# which devices come together; the first numbers choose among the rows
_SETS = (
    ("pacemaker",),
    ("central line",),
    ("central line", "tracheal tube", "stomach tube"),
    ("tracheal tube", "stomach tube"),
    ("central line", "chest tube"),
    ("chest tube",),
)


def draw_devices(
    generator: np.random.Generator, frame: Frame, sign: Sign, is_frontal: bool, side: int
) -> np.ndarray:
    """Draws the devices of one study.

    Args:
        generator: source of random numbers for their exact course.
        frame: the film.
        sign: the finding, whose form says which devices there are.
        is_frontal: whether to draw them as seen from the front or from the side.
        side: where a chest tube lies, -1 the patient's right, 1 the left.

    Returns:
        Float32 (height, width), 0 to 1.
    """
    pen = frame.pen()
    strength = 0.5 + 0.5 * sign.severity
    draw = _DRAW_FRONTAL if is_frontal else _DRAW_LATERAL
    for device in _SETS[int(sign.form * len(_SETS))]:
        draw[device](generator, pen, strength, side)
    return pen.field()


def curve(points: list[tuple[float, float]], steps: int = 14) -> list[tuple[float, float]]:
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


def _jitter(
    generator: np.random.Generator, points: list[tuple[float, float]], size: float = 0.012
) -> list[tuple[float, float]]:
    moved = np.array(points) + generator.normal(0, size, (len(points), 2))
    return curve([tuple(point) for point in moved.tolist()])


def _pacemaker(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
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
    lead = [(across, down - 0.05), (0.2, 0.06), (-0.06, 0.22), (-0.11, 0.6), (0.16, 0.9)]
    pen.line(_jitter(generator, lead), 0.016, strength)


def _central_line(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    if generator.random() < 0.5:
        path = [(-0.17, -0.25), (-0.15, -0.05), (-0.10, 0.15), (-0.105, 0.42)]
    else:
        path = [(-0.5, 0.0), (-0.3, 0.06), (-0.12, 0.14), (-0.105, 0.45)]
    pen.line(_jitter(generator, path), 0.014, strength)


def _tracheal_tube(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    tip = generator.uniform(0.12, 0.26)
    pen.line(_jitter(generator, [(0.0, -0.3), (0.005, -0.1), (0.0, tip)], 0.006), 0.026, strength)


def _stomach_tube(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    path = [(0.03, -0.3), (0.02, 0.2), (0.03, 0.7), (0.08, 1.02), (0.22, 1.18), (0.34, 1.2)]
    pen.line(_jitter(generator, path), 0.016, strength)


def _chest_tube(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    path = [(0.78, 0.72), (0.5, 0.62), (0.4, 0.4), (0.33, generator.uniform(0.1, 0.25))]
    pen.line(_jitter(generator, [(side * x, y) for x, y in path]), 0.028, strength)


def _lateral_pacemaker(
    generator: np.random.Generator, pen: Pen, strength: float, side: int
) -> None:
    pen.polygon([(-0.30, 0.08), (-0.25, 0.07), (-0.29, 0.22), (-0.34, 0.21)], 0.9)
    lead = [(-0.27, 0.08), (-0.05, 0.12), (-0.02, 0.5), (-0.18, 0.9)]
    pen.line(_jitter(generator, lead), 0.016, strength)


def _lateral_line(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    path = [(-0.12, -0.25), (-0.10, 0.05), (-0.05, 0.25), (-0.04, 0.45)]
    pen.line(_jitter(generator, path), 0.014, strength)


def _lateral_trachea(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    path = [(-0.06, -0.3), (-0.01, -0.05), (0.03, generator.uniform(0.15, 0.28))]
    pen.line(_jitter(generator, path, 0.006), 0.026, strength)


def _lateral_stomach(generator: np.random.Generator, pen: Pen, strength: float, side: int) -> None:
    path = [(-0.02, -0.3), (0.08, 0.1), (0.12, 0.6), (0.04, 1.02), (-0.12, 1.14)]
    pen.line(_jitter(generator, path), 0.016, strength)


def _lateral_chest_tube(
    generator: np.random.Generator, pen: Pen, strength: float, side: int
) -> None:
    path = [(0.0, 0.85), (0.1, 0.6), (0.2, 0.3), (0.15, 0.12)]
    pen.line(_jitter(generator, path), 0.028, strength)


_DRAW_FRONTAL = {
    "pacemaker": _pacemaker,
    "central line": _central_line,
    "tracheal tube": _tracheal_tube,
    "stomach tube": _stomach_tube,
    "chest tube": _chest_tube,
}
_DRAW_LATERAL = {
    "pacemaker": _lateral_pacemaker,
    "central line": _lateral_line,
    "tracheal tube": _lateral_trachea,
    "stomach tube": _lateral_stomach,
    "chest tube": _lateral_chest_tube,
}
