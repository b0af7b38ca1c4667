"""Which images and patients two choices of samples share, such as training and validation."""

from nakt_dist.loading.samples import SelectedSamples


def images_in_both(first: SelectedSamples, second: SelectedSamples) -> list[str]:
    """Names the images of one choice that are in another as well, whatever they are called there.

    In one packing they are known by their keys; of two packings by the numbers of their
    pictures, which size, fit and encoding do not change.

    Returns:
        The keys in ``second``, in its order.
    """
    if first.images.manifest.fingerprint != second.images.manifest.fingerprint:
        return copies_in_both(first, second)
    met = set(first.images.keys)
    return [key for key in second.images.keys if key in met]


def copies_in_both(first: SelectedSamples, second: SelectedSamples) -> list[str]:
    """Names the images of one choice whose picture is in another as well, under whatever key.

    Returns:
        The keys in ``second``, in its order.
    """
    met = set(first.images.column("pixels").to_pylist()) - {None}
    pictures = second.images.column("pixels").to_pylist()
    return [
        key for key, picture in zip(second.images.keys, pictures, strict=True) if picture in met
    ]


def patients_in_both(first: SelectedSamples, second: SelectedSamples) -> list[str]:
    """Names the patients that two choices of one dataset share.

    Datasets of different names count as having no patient in common, because each names its
    patients in its own way; packings of one dataset should therefore keep its name.

    Returns:
        Their ids as the dataset gives them, sorted; images of unknown patients do not count.
    """
    if first.images.manifest.dataset != second.images.manifest.dataset:
        return []
    both = set(first.images.patients) & set(second.images.patients)
    return sorted(patient for patient in both if patient is not None)
