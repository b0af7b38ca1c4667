"""What tests of modules share."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and never drawn: for tests of what a report says."""
    monkeypatch.setattr(FigureCanvasAgg, "print_png", lambda *_, **__: None)
