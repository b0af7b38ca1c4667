"""Puts weights into a network, and says exactly what did not fit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nakt_dist.errors import CheckpointError
from nakt_dist.models.heads import HEAD_PREFIXES

if TYPE_CHECKING:
    from nakt_dist.models.weights import LoadedWeights

COUNTER = ".num_batches_tracked"
"""Ends the name of a BatchNorm's counter of batches."""

_NAMES_SHOWN = 3
_GROUP_DEPTH = 2  # as in features.denseblock4
_GROUPS_SHOWN = 8


@dataclass(frozen=True)
class ShapeMismatch:
    """An entry that both sides have, in two shapes."""

    name: str
    file_shape: tuple[int, ...]
    network_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: file {self.file_shape}, network {self.network_shape}"


@dataclass(frozen=True)
class LoadReport:
    """What of a file fits a network; names of state-dict entries in the order of their owner.

    Attributes:
        matched: loaded into the network.
        missing: in the network, not in the file.
        unexpected: in the file, not in the network.
        shape_mismatched: in both, in two shapes.
        replaced_head: left at the network's own fresh values because the head was replaced;
            these are in none of the lists above.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape_mismatched: tuple[ShapeMismatch, ...]
    replaced_head: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a replaced head was left out on either side."""
        return not (self.missing or self.unexpected or self.shape_mismatched)

    def summary(self) -> str:
        """Returns one line for people; entries are grouped by the modules that own them."""
        total = len(self.matched) + len(self.missing) + len(self.shape_mismatched)
        parts = [f"{len(self.matched)} of {total + len(self.replaced_head)} tensors loaded"]
        mismatched = [each.name for each in self.shape_mismatched]
        for names, what in (
            (self.replaced_head, "new head"),
            (self.missing, "fresh, since the file lacks them"),
            (mismatched, "fresh, of another shape in the file"),
            (self.unexpected, "left in the file, the network has no place for them"),
        ):
            if names:
                parts.append(f"{what}: {_grouped(names)}")
        return "; ".join(parts)


def load_into(network: nn.Module, loaded: "LoadedWeights") -> LoadReport:
    """Copies weights into a network, in the network's own dtypes and on its devices.

    First layers are never adapted: a network for one channel does not take the weights of one
    for three, and the message says so.

    Args:
        network: the bare network, not wrapped for DDP or compiled.
        loaded: from ``read_weights``, with the network's names.

    Raises:
        CheckpointError: something does not match, or is of another kind of number; the network
            is then as it was.
    """
    wanted = network.state_dict()
    report = compare(wanted, loaded.state_dict, loaded.path)
    if not (report.is_complete and report.matched):
        raise CheckpointError(explain_misfit(report, wanted, loaded))
    copy_matched(network, loaded.state_dict, report)
    return report


def copy_matched(network: nn.Module, found: Mapping[str, Tensor], report: LoadReport) -> None:
    """Copies the entries that a comparison found to match."""
    network.load_state_dict({name: found[name] for name in report.matched}, strict=False)


def compare(
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    path: Path,
    fresh: Collection[str] = (),
) -> LoadReport:
    """Matches the entries of a network with those of a file.

    BatchNorm's counters of batches, which old files lack, are then in no list: they play no part
    in a trained network.

    Args:
        fresh: entries that keep the network's values, whatever the file has; a whole head.

    Raises:
        CheckpointError: an entry is of another kind of number.
    """
    _check_kinds(found, wanted, path)
    asked = [name for name in wanted if name not in fresh and not _may_lack(name, found)]
    fits = {name for name in asked if name in found and found[name].shape == wanted[name].shape}
    return LoadReport(
        matched=tuple(name for name in asked if name in fits),
        missing=tuple(name for name in asked if name not in found),
        unexpected=tuple(name for name in found if name not in wanted),
        shape_mismatched=tuple(
            ShapeMismatch(name, tuple(found[name].shape), tuple(wanted[name].shape))
            for name in asked
            if name in found and name not in fits
        ),
        replaced_head=tuple(name for name in wanted if name in fresh),
    )


def _may_lack(name: str, found: Mapping[str, Tensor]) -> bool:
    norm = name.removesuffix(COUNTER)
    return norm != name and name not in found and f"{norm}.running_mean" in found


def _check_kinds(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Refuses whole, truth or complex values where a network has real ones, such as of int8.

    Copied they would lose their scale or their imaginary part without a word.
    """
    for name, tensor in wanted.items():
        other = found.get(name)
        if other is not None and tensor.is_floating_point() and not other.is_floating_point():
            raise CheckpointError(
                f"{path}: entry {name} holds {str(other.dtype).removeprefix('torch.')}, and the "
                "network floating-point numbers; give weights that were not quantised"
            )


def _grouped(names: Sequence[str]) -> str:
    groups: dict[str, int] = {}
    for name in names:
        module = name.rpartition(".")[0] or name
        group = ".".join(module.split(".")[:_GROUP_DEPTH])
        groups[group] = groups.get(group, 0) + 1
    shown = [f"{group} ({count})" for group, count in list(groups.items())[:_GROUPS_SHOWN]]
    rest = len(groups) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def explain_misfit(
    report: LoadReport, wanted: Mapping[str, Tensor], loaded: "LoadedWeights"
) -> str:
    """Returns the message of a ``CheckpointError``: what does not fit, and what to do."""
    parts = [
        f"{len(entries)} {what} ({_some(entries)})"
        for what, entries in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("of another shape", report.shape_mismatched),
        )
        if entries
    ]
    return (
        f"{loaded.path}: its weights do not fit the network: {len(report.matched)} entries match, "
        f"{', '.join(parts)}. {_advice(report, wanted, loaded)}"
    )


def _some(entries: Sequence[object]) -> str:
    shown = [str(each) for each in entries[:_NAMES_SHOWN]]
    return ", ".join(shown) + (", …" if len(entries) > _NAMES_SHOWN else "")


def _advice(report: LoadReport, wanted: Mapping[str, Tensor], loaded: "LoadedWeights") -> str:
    mismatched = report.shape_mismatched
    first = next((name for name, tensor in wanted.items() if tensor.ndim == 4), None)
    for each in mismatched:
        theirs, ours = each.file_shape, each.network_shape
        if each.name == first and theirs[:1] + theirs[2:] == ours[:1] + ours[2:]:
            return (
                f"Its first layer reads {theirs[1]} image channels, the network's {ours[1]}: "
                f"set in_channels to {theirs[1]}"
            )
    others = report.missing or report.unexpected
    if (
        mismatched
        and not others
        and all(each.name.startswith(HEAD_PREFIXES) for each in mismatched)
    ):
        numbers = next((each for each in mismatched if each.file_shape), None)
        if numbers is not None:
            return (
                f"Only the heads differ: set num_outputs to {numbers.file_shape[0]}, or replace "
                "the head to train a new one"
            )
    described = f" (the file describes {loaded.spec.to_json()})" if loaded.spec else ""
    beside = ""
    if report.unexpected and not report.missing and not mismatched:
        beside = ", or save the file without what is not the network's own"
    return f"Check the network's name and options{beside}{described}"
