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
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What is imported to collect the tests stays: nobody looks for garbage in it."""
    if hasattr(session.config, "workerinput"):
        _begin_elsewhere(session.config)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _begin_elsewhere(config: pytest.Config) -> None:
    """Lets each worker begin with other files: what one has rewritten and compiled, others find.

    In a fresh clone each would rewrite all asserts itself, since all come to a file together.
    """
    folders = [config.invocation_params.dir / each for each in config.args]
    if not all(folder.is_dir() for folder in folders):
        return
    files = sorted(str(file) for folder in folders for file in folder.rglob("test_*.py"))
    number, workers = int(config.workerinput["workerid"][2:]), config.workerinput["workercount"]
    first = len(files) * number // workers
    config.args = files[first:] + files[:first]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs come first: they wait for SLURM for minutes, and others can compute meanwhile.

    The others are in the order of their files, wherever a worker has begun.
    """
    items.sort(key=lambda item: (item.get_closest_marker("slurm") is None, str(item.path)))


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
