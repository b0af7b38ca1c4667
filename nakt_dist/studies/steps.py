"""Reads the steps of a study's file: what they run, over which axes, and what they choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nakt_dist.config import StudyConfig
from nakt_dist.config.axes import AXIS_KEYS
from nakt_dist.config.placeholders import check_names
from nakt_dist.errors import ConfigurationError, nearest_name

NOT_IN_A_STUDY = ("study", "submit", "doctor", "watch")
_KEYS = (
    "stage", "config", "name", *AXIS_KEYS, "search", "processes", "accelerate_config", "retries",
    "hours", "job",
)  # fmt: skip
_CHOICE_KEYS = ("choose", "of", "over", "by")


@dataclass(frozen=True)
class Launch:
    """How the runs of a step are started.

    Attributes:
        processes: that share the work.
        accelerate_config: file of Accelerate's settings, for DeepSpeed; or None.
        retries: how often a run that failed is tried again.
        hours: that a run takes, where nothing tells; None takes records of like runs.
        job: settings of ``nakt submit`` for these runs, such as ``{"time": "04:00:00"}``.
    """

    processes: int = 1
    accelerate_config: str | None = None
    retries: int = 1
    hours: float | None = None
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_alone(self) -> bool:
        """Whether a run is one process that needs no launcher."""
        return self.processes == 1 and self.accelerate_config is None


@dataclass(frozen=True)
class Step:
    """A step that runs a stage, as it stands in the file.

    Attributes:
        number: of the step in the file, from 1.
        name: by which ``choose`` and people know it.
        config: its settings, with ``${name}`` in them.
        axes: what of ``rounds``, ``matrix``, ``zip``, ``random`` and ``exclude`` it has.
        search: how its trials are drawn, as it stands in the file; None without.
    """

    number: int
    stage: str
    name: str
    config: Any
    axes: Mapping[str, Any]
    launch: Launch
    search: Any = None

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"steps[{self.number}], {self.stage}"


@dataclass(frozen=True)
class ChoiceStep:
    """A step that chooses among the runs of another.

    Attributes:
        number: of the step in the file, from 1.
        name: which ``${name.axis}`` later steps use.
        of: the step whose runs are compared.
        over: the axes among whose values the best is taken.
        by: the metric of their records.
    """

    number: int
    name: str
    of: str
    over: tuple[str, ...]
    by: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"steps[{self.number}], choose {self.name}"


def read_steps(config: StudyConfig, stages: Sequence[str]) -> tuple[list[Step], list[ChoiceStep]]:
    """Reads the steps; their settings are not looked at yet.

    Raises:
        ConfigurationError: a key is unknown or missing, a name is there twice, or a value is of
            the wrong type.
    """
    steps: list[Step] = []
    choices: list[ChoiceStep] = []
    allowed = [name for name in stages if name not in NOT_IN_A_STUDY]
    for number, values in enumerate(config.steps, start=1):
        if "choose" in values:
            choices.append(_read_choice(number, values))
        else:
            steps.append(_read_step(number, values, config, allowed))
    taken: dict[str, str] = {}
    named: list[Step | ChoiceStep] = [*steps, *choices]
    for step in named:
        if step.name in taken:
            raise ConfigurationError(
                f"{step.place}: the name '{step.name}' is also that of {taken[step.name]}; "
                "rename one"
            )
        taken[step.name] = step.place
    for choice in choices:
        _check_choice(choice, steps, config)
    return steps, choices


def _read_step(
    number: int, values: Mapping[str, Any], config: StudyConfig, allowed: Sequence[str]
) -> Step:
    where = f"steps[{number}]"
    if not {"stage", "config"} <= set(values) or values["stage"] not in allowed:
        raise ConfigurationError(
            f"{where} is {dict(values)!r:.200}; expected stage (one of {', '.join(allowed)}) and "
            "config, or choose"
        )
    stage = values["stage"]
    _check_keys(f"{where}, {stage}", values, _KEYS)
    axes = {key: values[key] for key in AXIS_KEYS if key in values}
    if "exclude" in axes and len(axes) == 1:
        raise ConfigurationError(
            f"{where}, {stage}: exclude without axes; there is nothing to leave out"
        )
    name = values.get("name", f"{stage} {number}")
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"{where}, {stage}: name is {name!r}, expected text")
    launch = _read_launch(f"{where}, {stage}", values, config)
    search = values.get("search")
    if search is not None and axes:
        raise ConfigurationError(
            f"{where}, {stage}: search beside {', '.join(axes)}; a step has one or the other"
        )
    return Step(number, stage, name, values["config"], axes, launch, search)


def _read_launch(where: str, values: Mapping[str, Any], config: StudyConfig) -> Launch:
    kinds: dict[str, tuple[type, ...]] = {
        "processes": (int,), "accelerate_config": (str,), "retries": (int,),
        "hours": (int, float), "job": (dict,),
    }  # fmt: skip
    given: dict[str, Any] = {"retries": config.retries}
    for key, kind in kinds.items():
        if key not in values:
            continue
        value = values[key]
        least = 1 if key == "processes" else 0
        number = isinstance(value, int | float)
        wrong = isinstance(value, bool) or not isinstance(value, kind)
        if wrong or (number and not least <= value <= 10_000):
            expected = {"accelerate_config": "a file", "job": "settings of nakt submit"}
            raise ConfigurationError(
                f"{where}: {key} is {value!r:.60}, expected "
                f"{expected.get(key, f'{least} to 10000')}"
            )
        given[key] = value
    return Launch(**given)


def _read_choice(number: int, values: Mapping[str, Any]) -> ChoiceStep:
    where = f"steps[{number}], choose"
    _check_keys(where, values, _CHOICE_KEYS)
    for key in _CHOICE_KEYS:
        if key not in values:
            raise ConfigurationError(f"{where}: {key} is missing ({', '.join(_CHOICE_KEYS)})")
    over = values["over"]
    texts = all(isinstance(values[key], str) for key in ("choose", "of", "by"))
    if not texts or not isinstance(over, list) or not over or not all(map(str, over)):
        raise ConfigurationError(
            f"{where} is {dict(values)!r:.200}; expected choose, of and by as texts, and over as "
            "a list of axes"
        )
    check_names({values["choose"]: None}, where, {})
    return ChoiceStep(number, values["choose"], values["of"], tuple(map(str, over)), values["by"])


def _check_keys(where: str, values: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in map(str, values):
        if key not in keys:
            raise ConfigurationError(
                f"{where}: a step has no '{key}'{nearest_name(key, keys)} ({', '.join(keys)})"
            )


def _check_choice(choice: ChoiceStep, steps: Sequence[Step], config: StudyConfig) -> None:
    names = [step.name for step in steps]
    if choice.of not in names:
        raise ConfigurationError(
            f"{choice.place}: there is no step '{choice.of}'{nearest_name(choice.of, names)} "
            f"({', '.join(names)})"
        )
    if choice.name in (*config.definitions, "root", "data"):
        raise ConfigurationError(
            f"{choice.place}: '{choice.name}' is a definition already; give it another name"
        )
