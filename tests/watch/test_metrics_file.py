import json
import math
import os
from pathlib import Path

import pytest

from nakt_dist.watch.metrics_file import MOST_POINTS, Curve, MetricsFile
from tests.watch.writing import append


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_only_whole_lines_are_taken_and_the_rest_when_it_is_there(path: Path) -> None:
    followed = MetricsFile(path)
    assert not followed.poll()
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert followed.poll() and followed.step == 1
    assert not followed.poll()
    with path.open("a") as stream:
        stream.write('ss": 0.25}\n')
    assert followed.poll()
    assert followed.curves["loss"].points() == ([1, 2], [0.5, 0.25])
    assert followed.damaged == 0 and not followed.is_behind


def test_a_resumed_run_that_rewrites_its_file_is_read_again(path: Path) -> None:
    lines = [{"step": step, "loss": float(step)} for step in range(1, 40)]
    append(path, lines)
    followed = MetricsFile(path)
    followed.poll()
    path.unlink()
    append(path, [*lines[:20], *({"step": step, "loss": 100.0} for step in range(21, 60))])
    assert followed.poll()
    assert followed.step == 59
    assert followed.curves["loss"].points()[1][19:21] == [20.0, 100.0]


def test_a_file_that_became_shorter_forgets_what_is_gone(path: Path) -> None:
    append(path, [{"step": step, "loss": 1.0} for step in range(1, 40)])
    followed = MetricsFile(path)
    followed.poll()
    path.write_text('{"step": 1, "loss": 1.0}\n')
    assert followed.poll() and followed.step == 1
    path.unlink()
    assert followed.poll() and followed.step is None and not followed.curves


def test_damaged_lines_are_counted_and_numbers_that_are_none_stay_harmless(path: Path) -> None:
    odd = ["no JSON", '{"loss": 1}', "[1]", '{"step": true}', "\x00\xff", "[" * 100_000]
    good = ['{"step": 1, "loss": NaN}', '{"step": 2, "loss": 1e999}', '{"step": 3, "loss": 2}']
    big = '{"step": 4, "loss": ' + "9" * 400 + "}"
    path.write_bytes("\n".join([*odd, *good, big, ""]).encode("latin-1"))
    followed = MetricsFile(path)
    followed.poll()
    assert followed.damaged == len(odd)
    values = followed.curves["loss"].points()[1]
    assert values[2] == 2.0 and all(map(math.isnan, [*values[:2], values[3]]))


def test_a_long_file_is_read_in_bites(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nakt_dist.watch.metrics_file._LARGEST_BITE", 1000)
    append(path, [{"step": step, "loss": 1.0} for step in range(1, 200)])
    followed = MetricsFile(path)
    looks = 0
    while followed.poll():
        looks += 1
    assert looks > 3 and followed.step == 199 and not followed.is_behind


def test_a_curve_keeps_its_shape_in_few_points() -> None:
    curve = Curve()
    for step in range(1, 5001):
        curve.add(step, step)
    steps, values = curve.points()
    assert MOST_POINTS <= len(steps) <= 2 * MOST_POINTS and steps[-1] == 5000
    # Each value is the mean of the steps up to it, half a width before.
    width = steps[1] - steps[0]
    assert values[10] == pytest.approx(steps[10] - (width - 1) / 2)


def test_the_pace_is_that_of_the_lines_that_came(path: Path) -> None:
    import os

    followed = MetricsFile(path)
    for number, step in enumerate((10, 30, 50)):
        append(path, [{"step": step, "loss": json.loads("1")}])
        os.utime(path, (1000 + 10 * number, 1000 + 10 * number))
        followed.poll()
    assert followed.steps_per_second() == pytest.approx(2.0)


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    followed = MetricsFile(path)
    assert not followed.poll() and followed.step is None
    path.unlink()
    append(path, [{"step": 1, "loss": 0.5}])
    assert followed.poll() and followed.step == 1
