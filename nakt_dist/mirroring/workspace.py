"""A view of a study in W&B's workspace: its results and curves by axis, its runs by state."""

from typing import Any

from nakt_dist.errors import ConfigurationError
from nakt_dist.mirroring.glance import StudyGlance

_RESULTS = ("auroc_mean", "dice_mean")
_CURVES = ("validation_auroc", "validation_dice", "loss")
_MOST_RUNS = 100
_COLUMNS = ("run:state", "run:jobType", "summary:best_validation_dice",
            "summary:best_validation_auroc", *(f"summary:{name}" for name in _RESULTS))  # fmt: skip


def save_workspace(study: StudyGlance, project: str, entity: str) -> str:
    """Saves a view of a study for everybody in its project; people may then change it.

    Results as bars and curves as bands, both grouped by the first axis but the seed; the runs of
    the study's group by stage, with their axes and results as columns.

    Returns:
        Its address.

    Raises:
        ConfigurationError: the package that writes views is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as views
        from wandb_workspaces.expr import And, Metric
    except ImportError as error:
        raise ConfigurationError(
            f"workspace is set, and its package is not installed ({error}): pip install "
            "'nakt_dist[workspaces]'"
        ) from None
    axes = [axis for axis in study.axes if axis != "seed"]
    by = panels.Config(f"study.axes.{axes[0]}") if axes else None
    bars: list[Any] = [panels.BarPlot(title=name, metrics=[name], groupby=by) for name in _RESULTS]
    curves: list[Any] = [
        panels.LinePlot(title=name, x="step", y=[name], groupby=by, groupby_rangefunc="stddev")
        for name in _CURVES
    ]
    sections = [
        views.Section(name="Results", panels=bars, is_open=True),
        views.Section(name="Learning curves", panels=curves, is_open=True),
    ]
    view = views.Workspace(
        entity=entity,
        project=project,
        name=f"Study {study.plan.name}",
        sections=sections,
        settings=views.WorkspaceSettings(max_runs=_MOST_RUNS),
        runset_settings=views.RunsetSettings(
            filters=And(Metric("Group") == study.plan.name),
            groupby=[Metric("JobType")],
            pinned_columns=[*(f"config:study.axes.{axis}" for axis in axes), *_COLUMNS],
        ),
    )
    return view.save().url
