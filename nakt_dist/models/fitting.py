"""Puts weights into a network, and says exactly what did not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nakt_dist.errors import CheckpointError

if TYPE_CHECKING:
    from nakt_dist.models.weights import LoadedWeights

HEAD_PREFIXES = ("head.", "segmentation_head.", "classifier.", "fc.")
"""How the networks here, those of smp and the usual classifiers call their last layer."""

_NAMES_SHOWN = 3
_GROUP_DEPTH = 2  # as in features.denseblock4
_GROUPS_SHOWN = 8


@dataclass(frozen=True)
class ShapeMismatch:
    """An entry that both sides have, in two shapes.

    Attributes:
        name: of the entry.
        file_shape: in the weights file.
        network_shape: in the network.
    """

    name: str
    file_shape: tuple[int, ...]
    network_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: file {self.file_shape}, network {self.network_shape}"


@dataclass(frozen=True)
class LoadReport:
    """What ``load_into`` found; names of state-dict entries in the order of their owner.

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


def load_into(
    model: nn.Module, loaded: "LoadedWeights", strict: bool = True, replace_head: bool = False
) -> LoadReport:
    """Copies weights into a network, in the network's own dtypes and on its devices.

    First layers are never adapted: a network for one channel does not take the weights of one
    for three, and the message says so.

    Args:
        model: the bare network, not wrapped for DDP or compiled.
        loaded: from ``read_weights``.
        strict: whether every entry must match; otherwise what matches is loaded.
        replace_head: where shapes differ in the head alone, keep the network's own head, with
            its fresh weights, and load the rest. A head that fits is loaded.

    Raises:
        CheckpointError: ``strict`` and something does not match, or nothing matches at all, or an
            entry is of another kind of number; the network is then as it was.
    """
    wanted = model.state_dict()
    check_kinds(loaded.state_dict, wanted, loaded.path)
    report = _compare(wanted, loaded.state_dict, replace_head)
    if (strict and not report.is_complete) or not report.matched:
        raise CheckpointError(explain_misfit(report, wanted, loaded))
    model.load_state_dict({name: loaded.state_dict[name] for name in report.matched}, strict=False)
    return report


def check_kinds(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Refuses whole, truth or complex values where a network has real ones, such as of int8.

    Copied they would lose their scale or their imaginary part without a word.

    Raises:
        CheckpointError: names the first such entry.
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


def _compare(wanted: dict[str, Tensor], found: dict[str, Tensor], replace_head: bool) -> LoadReport:
    common = [name for name in wanted if name in found]
    mismatched = [name for name in common if wanted[name].shape != found[name].shape]
    fresh: set[str] = set()
    if replace_head and mismatched and all(name.startswith(HEAD_PREFIXES) for name in mismatched):
        # All of the head, not the entries that differ alone: half a head is none.
        fresh = {name for name in [*wanted, *found] if name.startswith(HEAD_PREFIXES)}
    return LoadReport(
        matched=tuple(name for name in common if name not in mismatched and name not in fresh),
        missing=tuple(name for name in wanted if name not in found and name not in fresh),
        unexpected=tuple(name for name in found if name not in wanted and name not in fresh),
        shape_mismatched=tuple(
            ShapeMismatch(name, tuple(found[name].shape), tuple(wanted[name].shape))
            for name in mismatched
            if name not in fresh
        ),
        replaced_head=tuple(name for name in wanted if name in fresh),
    )


def explain_misfit(
    report: LoadReport, wanted: Mapping[str, Tensor], loaded: "LoadedWeights"
) -> str:
    """Returns the message of a ``CheckpointError``: what does not fit, and what to do.

    Args:
        report: of the comparison.
        wanted: the network's state dict.
        loaded: the file.
    """
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
        if each.name == first and each.file_shape[2:] == each.network_shape[2:]:
            in_file, in_network = each.file_shape[1], each.network_shape[1]
            if in_file != in_network and each.file_shape[0] == each.network_shape[0]:
                return (
                    f"Its first layer reads {in_file} image channels, the network's {in_network}: "
                    f"set in_channels to {in_file}"
                )
    others = report.missing or report.unexpected
    if (
        mismatched
        and not others
        and all(each.name.startswith(HEAD_PREFIXES) for each in mismatched)
    ):
        numbers = next((each for each in mismatched if each.file_shape), None)
        if numbers is not None:
            return _advice_on_heads(numbers.file_shape[0], numbers.network_shape[0])
    described = f" (the file describes {loaded.spec.to_json()})" if loaded.spec else ""
    beside = ""
    if report.unexpected and not report.missing and not mismatched:
        beside = ", or save the file without what is not the network's own"
    return f"Check the network's name and options{beside}{described}"


def _advice_on_heads(in_file: int, in_network: int) -> str:
    if in_network == 1:  # a hint to set num_outputs would end in the refusal of such teachers
        return (
            f"Only the heads differ: the file's has {in_file} outputs, and a head of one logit is "
            "expected. Softmax heads of two or more classes are not supported yet; give weights "
            "with one logit, or replace the head to train a new one"
        )
    return (
        f"Only the heads differ: set num_outputs to {in_file}, or replace the head to train a new "
        "one"
    )
