"""Looks for the masks of a folder of images, and never passes over those that are plainly there."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources.csv_tables import quoted
from nakt_dist.sources.files import FoundFile
from nakt_dist.sources.folder_names import Claim, ClaimFinder, split_of
from nakt_dist.sources.mask_pairs import Pairing, pair_masks

LOOK_LIKE_MASKS = "images that look like masks of others by their names or folders"
NAMED_AS_MASKS = "images that are named as masks are, with no image to belong to"
ENDINGS_ALIKE = "images named as another with one ending after it, which may be masks"
FOLDERS_ALIKE = "images in folders of the same file names, one of which may hold masks"

_OFF = "if these are images and no masks, set 'mask_suffix' and 'mask_folder' to ''"
_LEAST_ALIKE = 2


def find_masks(
    files: Sequence[FoundFile],
    mask_suffix: str | None,
    mask_folders: Sequence[str] | None,
    folders_are_classes: bool,
) -> Pairing:
    """Pairs images and masks by the settings, and by what is usual where these say nothing.

    Args:
        mask_suffix: as in ``image_folder``.
        mask_folders: paths of the folders of masks; None to guess them, empty for none.
        folders_are_classes: a folder whose name speaks of masks may be a class of images.

    Raises:
        ConfigurationError: an image has masks of several kinds, or files are plainly masks and
            the settings, or the guess, find no image for any of them.
    """
    pairing = pair_masks(files, ClaimFinder(files, mask_suffix, mask_folders))
    for group, claims in pairing.unpaired.items():
        guessed = claims[0].guessed
        if guessed and folders_are_classes:
            pairing.images += [claim.file for claim in claims]
        elif pairing.images:
            raise ConfigurationError(_unpaired_told(pairing, group, claims))
    pairing.images.sort(key=lambda file: file.name)
    _check_reverted(pairing)
    if mask_suffix or mask_folders:
        _check_settings(pairing, mask_suffix, mask_folders)
    return pairing


def told_of_masks(
    pairing: Pairing, all_guessed: bool, folders_are_classes: bool
) -> tuple[Counter[str], dict[str, str]]:
    """Returns counts of what was guessed and of what may be masks, and examples of the latter.

    Args:
        all_guessed: whether no setting said where masks are, so that the guess has seen them all.
    """
    found, examples = Counter(pairing.guessed()), {}
    hidden = [] if all_guessed else likely_masks(pairing.images)
    if hidden:
        found[LOOK_LIKE_MASKS] = len(hidden)
        examples[LOOK_LIKE_MASKS] = quoted(hidden[0].file.name)
        return found, examples
    if pairing.reverted:
        found[NAMED_AS_MASKS] = len(pairing.reverted)
        examples[NAMED_AS_MASKS] = quoted(pairing.reverted[0].file.name)
    if not pairing.masks:
        alike = _alike(pairing.images)
        if folders_are_classes:
            alike.pop(FOLDERS_ALIKE, None)
        found.update({words: count for words, (count, _) in alike.items()})
        examples |= {words: example for words, (_, example) in alike.items()}
    return found, examples


def _unpaired_told(pairing: Pairing, group: str, claims: Sequence[Claim]) -> str:
    return (
        f"The folder '{group}' is one of masks by its name, or by the setting 'mask_folder', and "
        f"none of its {len(claims)} files has the name of an image, such as "
        f"'{claims[0].file.name}' beside the image '{pairing.images[0].name}'; name masks and "
        f"images alike, or set 'mask_folder' and 'mask_suffix', or, {_OFF}"
    )


def _check_reverted(pairing: Pairing) -> None:
    """Refuses files that end like masks of images that lie in another folder."""
    names = {image.stem: image.name for image in pairing.images}
    alone = [] if pairing.masks else [claim for claim in pairing.alone if not claim.component]
    apart = [claim for claim in (*pairing.reverted, *alone) if claim.stems[0] in names]
    if apart:
        claim = apart[0]
        raise ConfigurationError(
            f"{len(apart)} files have {claim.group}, as masks do, and lie in another folder than "
            f"the image of that name, such as '{claim.file.name}' and "
            f"'{names[claim.stems[0]]}'; set 'mask_folder' to the folder of the masks, or, {_OFF}"
        )


def _check_settings(
    pairing: Pairing, mask_suffix: str | None, mask_folders: Sequence[str] | None
) -> None:
    """Refuses settings that find no mask where other ones would."""
    hidden = [] if pairing.masks else likely_masks(pairing.images)
    if not hidden:
        return
    claim = hidden[0]
    setting = f"mask_folder: {claim.component}"
    if not claim.component:
        stem = claim.file.stem
        setting = f"mask_suffix: '{stem[len(claim.stems[-1]) :]}'"
    asked = [f"mask_suffix: {mask_suffix!r}"] if mask_suffix else []
    asked += [f"mask_folder: {folder!r}" for folder in mask_folders or ()]
    raise ConfigurationError(
        f"No mask was found by {' and '.join(asked)}, but {len(hidden)} files have the name of an "
        f"image and {'lie in a folder of masks' if claim.component else 'an ending of masks'}, "
        f"such as '{claim.file.name}'; set {setting}, or leave both settings out, or, {_OFF}"
    )


def likely_masks(images: Sequence[FoundFile]) -> list[Claim]:
    """Returns the images that would be masks of others if nothing were set."""
    try:
        return pair_masks(images, ClaimFinder(images, None, None)).paired
    except ConfigurationError:  # of several kinds, so that there are some
        finder = ClaimFinder(images, None, None)
        return [claim for claim in map(finder.claim, images) if claim is not None]


def _alike(images: Sequence[FoundFile]) -> dict[str, tuple[int, str]]:
    """Counts images that may be masks in a way that has no usual name, each with an example."""
    told = {}
    ending, count = next(iter(_endings(images).most_common(1)), ("", 0))
    if count >= max(_LEAST_ALIKE, len(images) / 3):
        told[ENDINGS_ALIKE] = (count, f"{quoted(ending)}, for 'mask_suffix'")
    for alike in _folders_alike(images):
        told[FOLDERS_ALIKE] = (
            sum(len(stems) for _, stems in alike),
            " and ".join(quoted(folder) for folder, _ in alike[:3]),
        )
        break
    return told


def _endings(images: Sequence[FoundFile]) -> Counter[str]:
    """Counts what follows the name of an image in the name of another, in any folder."""
    stems = {image.stem for image in images}
    endings: Counter[str] = Counter()
    for image in images:
        for match in re.finditer(r"[ _-]", image.stem):
            ending = image.stem[match.start() :]
            if image.stem[: match.start()] in stems and re.search(r"[^\W\d_]{2}", ending):
                endings[ending] += 1
    return endings


def _folders_alike(images: Sequence[FoundFile]) -> list[list[tuple[str, frozenset[str]]]]:
    """Returns folders beside each other that hold files of the very same names."""
    stems: dict[str, set[str]] = defaultdict(set)
    for image in images:
        stems[image.folder].add(image.stem)
    alike: dict[tuple[str, frozenset[str]], list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for folder, names in sorted(stems.items()):
        outer, _, component = folder.rpartition("/")
        if len(names) >= _LEAST_ALIKE and split_of(component) is None:
            alike[outer, frozenset(names)].append((folder, frozenset(names)))
    return [folders for folders in alike.values() if len(folders) > 1]
