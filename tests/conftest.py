"""What all tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported, here and in the processes that tests start: side by side, several
# threads each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whether there is a GPU is asked without waking it: a process that has, cannot be forked from.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# No test cuts the power, and a small run would wait for the disk a hundred times.
os.fsync = lambda descriptor: None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported to collect the tests stays: nobody looks for garbage in it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs come first: they wait for SLURM for minutes, and others can compute meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker has told all by now, and need not take thousands of modules down.

    What is frozen when Python ends is a leak to nanobind, which says so.
    """
    if hasattr(config, "workerinput"):
        os._exit(0)
    gc.unfreeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public images beside the repository; skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NAKT_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(
            "real images are absent: set NAKT_REAL_DATA or put them in ../shared/data "
            "beside the repository"
        )
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and never drawn: for tests of what a report says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    monkeypatch.setattr(FigureCanvasAgg, "print_png", lambda *_, **__: None)


@pytest.fixture
def seeded() -> Iterator[None]:
    """Torch draws the same in each test, and as before after it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
