"""The classes of masks: their names, and how those of one side are found on another.

Where masks have several classes, a network gives a logit for each of them and for the background,
and softmax makes probabilities of these. Masks then travel as planes, one for each class but the
background, which is what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.limits import Limited

BACKGROUND = "background"
TARGET = "target"
ONE_TARGET = (BACKGROUND, TARGET)
"""The classes of binary masks, and of a network with two outputs that does not name them."""


@dataclass(frozen=True)
class ClassMap(Limited, group="class_map"):
    """How classes of masks, or of a teacher's outputs, are named where they are used.

    Classes are one if their names are. A class that is not known on the other side is refused
    rather than counted as background, which would teach that it is none: say so to have it. Binary
    masks do not name their class: it is called ``target``, and any that is alone on the other side
    is meant by it.

    Attributes:
        names: what a class is called on the other side, by its own name; several may become one,
            and ``background`` is a name as well.
        unknown: what becomes of a class that the other side does not have.
    """

    names: dict[str, str] = field(default_factory=dict)
    unknown: Literal["refuse", "background"] = "refuse"

    def places(self, own: Sequence[str], wanted: Sequence[str], whose: str) -> tuple[int, ...]:
        """Finds classes among those of the other side.

        Args:
            own: names of the classes to be found.
            wanted: names of the classes of the other side.
            whose: whose classes ``own`` are, for messages.

        Returns:
            For each of ``own`` its index in ``wanted``.

        Raises:
            ConfigurationError: one is unknown there, a wanted one is nobody's, or ``names`` speaks
                of a class that is not there.
        """
        for name in self.names:
            if name not in own:
                raise ConfigurationError(
                    f"{whose}: class_map.names has '{name}', which is none of its classes"
                    f"{nearest_name(name, own)} ({', '.join(own)})"
                )
        ends = {name for each in (own, wanted) for name in each} - {BACKGROUND}
        if len(own) == len(wanted) == len(ONE_TARGET) and TARGET in ends and not self.names:
            return tuple(int(name != BACKGROUND) for name in own)
        found = [self._found(name, wanted, whose) for name in own]
        lacking = [name for number, name in enumerate(wanted) if number not in found]
        if lacking:
            raise ConfigurationError(
                f"{whose}: has no class '{lacking[0]}' (its classes: {', '.join(own)}); say with "
                "class_map.names which of them it is"
            )
        return tuple(found)

    def _found(self, name: str, wanted: Sequence[str], whose: str) -> int:
        renamed = self.names.get(name, name)
        if renamed in wanted:
            return wanted.index(renamed)
        if self.unknown == "background" and name not in self.names:
            return wanted.index(BACKGROUND)
        raise ConfigurationError(
            f"{whose}: its class '{renamed}' is none of {', '.join(wanted)}"
            f"{nearest_name(renamed, wanted)}. Give it one of these names with class_map.names, "
            f"such as {{{name}: {BACKGROUND}}}, or set class_map.unknown to {BACKGROUND}"
        )


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the names of classes, of which ``background`` is one.

    Args:
        where: the setting or file that names them, for messages.

    Raises:
        ConfigurationError: there are fewer than two, one is there twice, or none is background.
    """
    if len(names) < 2 or len(set(names)) != len(names) or names.count(BACKGROUND) != 1:
        raise ConfigurationError(
            f"{where} is {', '.join(names) or 'empty'}; expected two or more different names, "
            f"one of them {BACKGROUND}"
        )
    return tuple(names)
