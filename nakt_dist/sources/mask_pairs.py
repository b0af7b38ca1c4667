"""Pairs images with their masks, and says where it is open which mask is whose."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources.csv_tables import quoted
from nakt_dist.sources.files import FoundFile
from nakt_dist.sources.folder_names import (
    MASK_WORDS,
    Claim,
    ClaimFinder,
    Parts,
    folders_of,
    is_plain,
    plain_image_stem,
    rest_of,
    split_of,
    words_of,
)
from nakt_dist.sources.named_files import loosely_spelt


@dataclass
class Pairing:
    """Which file is an image and which its mask.

    Attributes:
        images: sorted by name.
        masks: claims of each image that has some, by its name.
        problems: of images whose masks are ambiguous, by their name.
        alone: masks without an image.
        unpaired: folders that call themselves folders of masks and pair with no image.
        reverted: files whose ending is that of a mask and that no image beside them has.
    """

    images: list[FoundFile] = field(default_factory=list)
    masks: dict[str, list[Claim]] = field(default_factory=lambda: defaultdict(list))
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    alone: list[Claim] = field(default_factory=list)
    unpaired: dict[str, list[Claim]] = field(default_factory=lambda: defaultdict(list))
    reverted: list[Claim] = field(default_factory=list)

    @property
    def paired(self) -> list[Claim]:
        """The masks that have an image."""
        return [claim for claims in self.masks.values() for claim in claims]

    def guessed(self) -> dict[str, int]:
        """Counts the masks that no setting names by what they were guessed from, in words."""
        return dict(Counter(_guess_told(claim) for claim in self.paired if claim.guessed))


def pair_masks(files: Sequence[FoundFile], finder: ClaimFinder) -> Pairing:
    """Pairs every file that claims to be a mask with the image it belongs to.

    The image of a mask in a folder of masks lies at the same place in a folder beside that, or
    directly beside that; a mask in no folder of its own may have its image in any folder there, if
    its name is unique. The image of any other mask lies beside it. Names are compared as written,
    else in any letter case and without an ending such as ``_image`` or ``_training``.

    Raises:
        ConfigurationError: an image has masks of several kinds.
    """
    claims, pairing = [], Pairing()
    for file in files:
        claim = finder.claim(file)
        if claim is None:
            pairing.images.append(file)
        else:
            claims.append(claim)
    images = _Images(pairing.images) if claims else None
    candidates = {claim.file.name: images.of(claim) for claim in claims if images}
    used = {claim.group for claim in claims if candidates[claim.file.name]}
    for claim in claims:
        found = candidates[claim.file.name]
        if len(found) > 1:
            _several_images(pairing, claim, found)
        for image in found:
            pairing.masks[image.name].append(claim)
        if not found and claim.group not in used and claim.component:
            pairing.unpaired[claim.group].append(claim)
        elif not found and claim.group not in used and claim.guessed and not claim.is_named_mask:
            pairing.reverted.append(claim)
            pairing.images.append(claim.file)
        elif not found:
            pairing.alone.append(claim)
    if images:
        _pair_only_images(pairing, images)
    pairing.images.sort(key=lambda file: file.name)
    _check_kinds(pairing)
    return pairing


class _Images:
    """Finds the images that a mask may belong to."""

    def __init__(self, images: Sequence[FoundFile]) -> None:
        self._images = images
        self._beside: dict[Parts, set[str]] = defaultdict(set)
        for image in images:
            parts = folders_of(image)
            for depth, component in enumerate(parts):
                self._beside[parts[:depth]].add(component)
        self._partners: dict[tuple[Parts, str], frozenset[str]] = {}

    @functools.cached_property
    def _exact(self) -> "_Index":
        return _Index(self._images, lambda stem: {stem})

    @functools.cached_property
    def _loose(self) -> "_Index":
        return _Index(
            self._images, lambda stem: {loosely_spelt(stem), loosely_spelt(plain_image_stem(stem))}
        )

    def of(self, claim: Claim) -> list[FoundFile]:
        """Returns the images of a mask: one, several where that is open, or none."""
        for stem in claim.stems:
            found = self._of_stem(self._exact, claim, stem)
            if found:
                return found
        loose = (self._of_stem(self._loose, claim, loosely_spelt(stem)) for stem in claim.stems)
        return next(filter(None, loose), [])

    def _of_stem(self, index: "_Index", claim: Claim, stem: str) -> list[FoundFile]:
        if not claim.component:
            return index.at((*folders_of(claim.file), stem))
        for place in claim.places:
            found = index.near(claim, place, stem, self._allowed(place, claim.component))
            if found:
                return found
        return []

    def only_one_beside(self, claim: Claim) -> FoundFile | None:
        """Returns the image beside a folder of masks, if it is the only one there."""
        place = claim.places[0]
        beside = (*self._allowed(place, claim.component), "")
        found = [
            image for component in beside for image in self._some_in.get((place, component), ())
        ]
        return found[0] if len(found) == 1 and place else None

    @functools.cached_property
    def _some_in(self) -> dict[tuple[Parts, str], list[FoundFile]]:
        """Up to two images below each folder, and, under ``""``, directly in it."""
        some: dict[tuple[Parts, str], list[FoundFile]] = defaultdict(list)
        for image in self._images:
            parts = folders_of(image)
            for depth, component in enumerate((*parts, "")):
                if len(some[parts[:depth], component]) < 2:
                    some[parts[:depth], component].append(image)
        return some

    def _allowed(self, place: Parts, component: str) -> frozenset[str]:
        """Returns the folders beside one of masks that may hold its images.

        Those of another split never do. Where one is called the same but for the words that tell
        masks from images, as ``p1_images`` and ``p1_masks``, it alone does.
        """
        known = self._partners.get((place, component))
        if known is None:
            split, rest = split_of(component), rest_of(component)
            known = frozenset(
                each
                for each in self._beside[place]
                if split is None or split_of(each) in (None, split)
            )
            alike = frozenset(
                each for each in known if rest_of(each) == rest and split_of(each) == split
            )
            known = self._partners[place, component] = alike or known
        return known


class _Index:
    """Images by where they lie, under one form of their names."""

    def __init__(self, images: Iterable[FoundFile], forms: Callable[[str], set[str]]) -> None:
        self._by_path: dict[Parts, list[FoundFile]] = defaultdict(list)
        self._without_folder: dict[tuple[Parts, Parts], list[tuple[str, FoundFile]]] = defaultdict(
            list
        )
        self._by_stem: dict[str, list[FoundFile]] = defaultdict(list)
        for image in images:
            parts = folders_of(image)
            for stem in forms(image.stem):
                self._by_stem[stem].append(image)
                self._by_path[*parts, stem].append(image)
                for depth, component in enumerate(parts):
                    key = (parts[:depth], (*parts[depth + 1 :], stem))
                    self._without_folder[key].append((component, image))

    def at(self, path: Parts) -> list[FoundFile]:
        """Returns the images of this very path."""
        return self._by_path.get(path, [])

    def near(
        self, claim: Claim, place: Parts, stem: str, allowed: frozenset[str]
    ) -> list[FoundFile]:
        """Returns the images at the place of a mask in another folder, or in any for a flat one."""
        found = self.at((*place, *claim.below, stem))
        if not found:
            beside = self._without_folder.get((place, (*claim.below, stem)), [])
            found = [image for component, image in beside if component in allowed]
        if not found and not claim.below:
            depth = len(place)
            found = [
                image
                for image in self._by_stem.get(stem, [])
                if (parts := folders_of(image))[:depth] == place
                and parts[depth : depth + 1]
                and parts[depth] in allowed
            ]
        return found


def _pair_only_images(pairing: Pairing, images: _Images) -> None:
    """Pairs folders of masks whose files are called otherwise with the only image beside them.

    Several such masks must be numbered or hashed, as those of single objects are: names of words
    could be those of different targets.
    """
    for group, claims in list(pairing.unpaired.items()):
        image = images.only_one_beside(claims[0])
        plain = all(re.search(r"\d", claim.file.stem) for claim in claims) or len(claims) == 1
        if image is not None and plain and not any(claim.below for claim in claims):
            pairing.masks[image.name] += [
                claim._replace(number=f"object {number}") for number, claim in enumerate(claims)
            ]
            del pairing.unpaired[group]


def _several_images(pairing: Pairing, claim: Claim, images: Sequence[FoundFile]) -> None:
    names = ", ".join(f"'{image.name}'" for image in images[:3])
    detail = f"the mask '{claim.file.name}' has the name of {len(images)} images ({names}); name "
    for image in images:
        pairing.problems[image.name] = (
            "ambiguous_mask",
            f"{detail}each mask after one image, in folders as those of the images",
        )


def _check_kinds(pairing: Pairing) -> None:
    """Notices images with masks of several kinds, and with two masks that are the same one."""
    for name, claims in pairing.masks.items():
        groups = sorted({claim.group for claim in claims})
        if len(groups) > 1:
            told = " and ".join(_group_told(claims, group) for group in groups[:3])
            raise ConfigurationError(
                f"'{name}' has masks of {len(groups)} kinds: {told}; it is open which is the "
                f"target. {_settings_told(claims)}{_named_layouts(claims)}"
            )
        numbers = Counter(claim.number for claim in claims)
        if max(numbers.values()) > 1:
            files = ", ".join(f"'{claim.file.name}'" for claim in claims)
            detail = f"expected one mask, or numbered ones, found {files}; remove all but one"
            pairing.problems[name] = ("ambiguous_mask", detail)


def _group_told(claims: Sequence[Claim], group: str) -> str:
    claim = next(each for each in claims if each.group == group)
    return f"the folder '{group}'" if claim.component else claim.group


def _settings_told(claims: Sequence[Claim]) -> str:
    """Says which setting chooses one of several kinds of masks."""
    folders = sorted({claim.component for claim in claims if claim.component})
    endings = [claim.group.rpartition("ends in ") for claim in claims if not claim.component]
    if len(folders) > 1 or (folders and not endings):
        chosen = f"Name one as 'mask_folder', such as mask_folder: {folders[0]}"
    elif folders:
        chosen = f"Set mask_suffix: '' for the folder '{folders[0]}', or mask_folder: ''"
    else:
        ending = next((e for _, told, e in endings if told), "''")
        return f"Name one as 'mask_suffix', as the files write it, such as mask_suffix: {ending}"
    return f"{chosen}{', and mask_suffix: ' + repr('') if len(folders) > 1 and endings else ''}"


def _named_layouts(claims: Sequence[Claim]) -> str:
    told = "".join(claim.group for claim in claims).lower()
    known = "; DRIVE and CHASE_DB1 have layouts of their own: drive, chase_db1"
    return known if "manual" in told or "stho" in told else ""


def _guess_told(claim: Claim) -> str:
    if not claim.component:
        told = (
            claim.group.replace("a name", "names").replace("ends", "end").replace("begins", "begin")
        )
        return f"masks guessed from {told}"
    if is_plain(claim.component):
        return f"masks guessed from folders called {quoted(claim.component)}"
    word = next(word for word in words_of(claim.component) if word in MASK_WORDS)
    return f"masks guessed from folders with '{word}' in their names"
