"""Draws the values of trials with Optuna: all that imports it."""

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nakt_dist.config.searching import SearchSettings
from nakt_dist.errors import ConfigurationError
from nakt_dist.studies.rungs import Trial


def check_optuna() -> None:
    """Refuses to begin a search without Optuna.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigurationError(
            "a step with search draws its trials with Optuna, which is not installed: "
            "pip install 'nakt_dist[optuna]'"
        )


def draw(
    settings: SearchSettings, name: str, trials: Sequence[Trial], number: int, end: int, path: Path
) -> dict[str, Any]:
    """Asks Optuna for the values of a trial, having told it all that is known of the others.

    A draw depends on the seed, the number and the trials before alone: each has a sampler of its
    own, and the journal is made anew where it says something else than the trials.

    Args:
        name: of the search.
        trials: that were drawn before.
        number: of the trial.
        end: length at which a trial is trained to the end.
        path: the journal, for this and for whoever looks at it with Optuna's tools. One process
            writes it.

    Returns:
        Values by name.
    """
    optuna = _optuna()
    spaces = {name: _distribution(optuna, drawn) for name, drawn in settings.values.items()}
    known = [_as_known(optuna, trial, settings, spaces, end) for trial in trials]
    study = _study(optuna, path, name)
    if not _tell(study, known):
        path.unlink()
        study = _study(optuna, path, name)
        _tell(study, known)
    digest = hashlib.sha256(f"{settings.seed}/{number}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study.sampler = samplers[settings.sampler](seed=seed)
    asked = study.ask(spaces)
    return {name: _value(settings.values[name], asked.params[name]) for name in settings.values}


def _optuna() -> ModuleType:
    check_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class _Alone:  # as optuna.storages.journal wants a lock, whose base has no public name
    """No lock: the study holds one of its own, and one more would outlive a process killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _study(optuna: ModuleType, path: Path, name: str) -> Any:
    """Opens the journal; makes it anew where it is damaged."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: Any = _Alone()

    def open_journal() -> Any:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        return optuna.create_study(
            study_name=name, storage=storage, direction="maximize", load_if_exists=True
        )

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return open_journal()
    except Exception:  # whatever it is, all that is in it comes from the trials
        path.unlink()
        return open_journal()


def _tell(study: Any, known: Sequence[Any]) -> bool:
    """Tells a journal what it does not know yet; False where it knows something else."""
    there = study.get_trials(deepcopy=False)
    if len(there) > len(known):
        return False  # asked, and never begun
    for number, trial in enumerate(known):
        if number == len(there):
            study.add_trials(known[number:])
            return True
        before = there[number]
        if before.params != trial.params or before.distributions != trial.distributions:
            return False
        if before.state.is_finished():
            same = (before.state, before.values, before.intermediate_values)
            if same != (trial.state, trial.values, trial.intermediate_values):
                return False
        elif trial.state.is_finished():
            if trial.intermediate_values:
                return False
            study.tell(number, trial.values, trial.state)
    return True


def _as_known(
    optuna: ModuleType, trial: Trial, settings: SearchSettings, spaces: Mapping[str, Any], end: int
) -> Any:
    """Returns a trial as Optuna has it; one that was stopped early, or may go on, as pruned."""
    states = optuna.trial.TrialState
    state, value, between = states.RUNNING, None, {}
    if trial.failed:
        state = states.FAIL
    elif trial.results:
        reached = max(trial.results)
        if reached >= end:
            state, value = states.COMPLETE, trial.results[reached]
        else:
            state, between = states.PRUNED, dict(trial.results)
            value = trial.results[reached]
    params = {name: _param(settings.values[name], trial.values[name]) for name in spaces}
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions=dict(spaces),
        intermediate_values=between,
    )


def _distribution(optuna: ModuleType, drawn: Mapping[str, Any]) -> Any:
    ((kind, values),) = drawn.items()
    if kind == "choice":
        return optuna.distributions.CategoricalDistribution([_param(drawn, v) for v in values])
    if kind == "integers":
        return optuna.distributions.IntDistribution(*values)
    low, high = map(float, values)
    return optuna.distributions.FloatDistribution(low, high, log=kind == "log_uniform")


def _param(drawn: Mapping[str, Any], value: Any) -> Any:
    """Returns a value as Optuna takes it: of a choice its text."""
    return json.dumps(value, sort_keys=True) if "choice" in drawn else value


def _value(drawn: Mapping[str, Any], param: Any) -> Any:
    if "choice" not in drawn:
        return param
    return next(value for value in drawn["choice"] if _param(drawn, value) == param)
