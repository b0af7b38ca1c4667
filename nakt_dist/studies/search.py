"""A search on disk: each trial in a file beside what its run leaves; and the choice among them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nakt_dist.config import TrainConfig
from nakt_dist.config.searching import TRIAL, SearchSettings
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.runtime.files import read_json, value_sha256, write_json
from nakt_dist.studies.choices import Choice, read_reached, require_same_findings
from nakt_dist.studies.rungs import Trial, next_move

TRIAL_NAME = "trial.json"


@dataclass(frozen=True)
class Search:
    """A step's search and the folders of its trials.

    Attributes:
        length: epochs, or steps, of a trial that is not stopped early.
    """

    name: str
    step: int
    settings: SearchSettings
    length: int
    outputs: tuple[str, ...]

    @property
    def rungs(self) -> list[int]:
        """The lengths at which trials are compared."""
        return self.settings.rungs(self.length)

    def read(self, number: int) -> Trial | None:
        """Reads a trial; None where it is not drawn.

        Raises:
            DatasetError: its file is damaged, or it was drawn by another search.
        """
        path = Path(self.outputs[number]) / TRIAL_NAME
        if not path.exists():
            return None
        given = read_json(path, "trial", 2**20)
        if given.get("search") != value_sha256(self.settings.identity):
            raise DatasetError(
                f"{path}: was drawn by a search with other settings (seed, sampler, by, values, "
                f"early_stopping). Give the trials of {self.name} other outputs, or delete these"
            )
        try:
            results = {int(length): float(value) for length, value in given["results"].items()}
            length = int(given["length"])
            if length not in self.rungs:  # the end has moved
                length = next((rung for rung in self.rungs if rung >= length), length)
            return Trial(number, dict(given["values"]), length, results, bool(given["failed"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"{path}: is damaged ({error!r:.60}). Delete its folder: it is drawn again"
            ) from None

    def write(self, trial: Trial) -> None:
        """Writes a trial, atomically."""
        folder = Path(self.outputs[trial.number])
        folder.mkdir(parents=True, exist_ok=True)
        results = {str(length): value for length, value in trial.results.items()}
        write_json(
            folder / TRIAL_NAME,
            {
                "number": trial.number,
                "values": dict(trial.values),
                "length": trial.length,
                "results": results,
                "failed": trial.failed,
                "search": value_sha256(self.settings.identity),
            },
        )

    def trials(self) -> list[Trial]:
        """Reads the trials that are drawn, by number."""
        found = (self.read(number) for number in range(len(self.outputs)))
        return [trial for trial in found if trial is not None]

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do, by what is noted."""
        trials = self.trials()
        count, factor = self.settings.count, self.settings.factor
        return next_move(trials, (), count, self.rungs, factor) is None


@dataclass(frozen=True)
class OneTrial:
    """The trial that a run is."""

    search: Search
    number: int

    @property
    def is_drawn(self) -> bool:
        """Whether its values are there."""
        return self.search.read(self.number) is not None

    def told(self) -> str:
        """Says how far it is, in words."""
        trial = self.search.read(self.number)
        if trial is None:
            return "to be drawn"
        reached = max(trial.results, default=0)
        return f"has reached {reached} of {self.search.length}" if reached else "drawn"

    def drawn(self) -> Trial:
        """Returns what was drawn; it is the study's process alone that draws.

        Raises:
            DatasetError: nothing was.
        """
        trial = self.search.read(self.number)
        if trial is None:
            raise DatasetError(
                f"trial {self.number} of {self.search.name} is not drawn yet: nakt study FILE, "
                "without only or task, draws it and begins it"
            )
        return trial

    def config_of(self, trial: Trial, config: TrainConfig) -> TrainConfig:
        """Returns a trial's configuration as far as it goes for now."""
        if self.search.settings.first_epochs is None:
            return config
        return replace(config, recipe=replace(config.recipe, epochs=trial.length))


@dataclass(frozen=True)
class SearchChoice(Choice):
    """A choice among the trials of a search, once it is over; those that failed do not count."""

    search: Search

    def decide(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Reads the records and takes the best; see ``Choice``."""
        if not self.search.is_over:
            raise DatasetError(f"the search {self.search.name} is not over, so that {self.name} "
                               "cannot be chosen: nakt study FILE goes on with it")  # fmt: skip
        ended = [trial for trial in self.search.trials() if not trial.failed]
        if not ended:
            raise DatasetError(f"no trial of {self.search.name} has a result to choose by")
        outputs = self.search.outputs
        reached = [read_reached(outputs[trial.number], self.by, self.name) for trial in ended]
        named = [(outputs[trial.number], [it]) for trial, it in zip(ended, reached, strict=True)]
        require_same_findings(self.name, self.by, named)
        metrics = [each.value for each in reached]
        best = ended[metrics.index(max(metrics))]
        told = dict(zip((outputs[trial.number] for trial in ended), metrics, strict=True))
        return {TRIAL: best.number, **best.values, "output": outputs[best.number]}, told


def check_search(settings: SearchSettings, config: Any) -> None:
    """Refuses a search of what is no training, or whose first epochs do not fit into it.

    Raises:
        ConfigurationError: names what is wrong.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigurationError("search is for a step of train")
    if settings.first_epochs is None:
        return
    epochs, every = config.recipe.epochs, config.checkpoint.every_epochs
    first = settings.first_epochs
    if epochs is None or first >= epochs or first % every:
        raise ConfigurationError(
            f"search.early_stopping.from is {first}, expected less than recipe.epochs ({epochs}) "
            f"and a multiple of checkpoint.every_epochs ({every}): trials are compared after "
            "validations that each of them has"
        )
    if config.recipe.schedule.ends_with_training:
        raise ConfigurationError(
            "search.early_stopping lets trials go on with more epochs, and a learning rate of "
            f"recipe.schedule {config.recipe.schedule.name} falls to its end in those of the "
            "first. Take constant or step, or leave search.early_stopping out"
        )


def length_of(config: TrainConfig) -> int:
    """Returns the epochs of a training, or its steps."""
    return config.recipe.epochs or config.recipe.steps or 0
