"""Attention transfer: how far a student's activation maps are from its teacher's (paper B).

Three ways to sum up the difference, and the two ways to weigh it, of which the paper's equation
prints one and its text and the authors' code take the other.
"""

from typing import Literal

import torch
from torch.nn import functional

from nakt_dist.errors import ConfigurationError

Reduction = Literal["eq2", "batch_frobenius", "zagoruyko"]
Matching = Literal["adaptive_pool", "interpolate"]

NORM_FLOOR = 1e-6
"""A plane with no larger L2 norm counts as all zero: its direction is rounding noise, and a
gradient divided by its norm would drown all others."""


def attention_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    reduction: Reduction = "eq2",
    matching: Matching = "adaptive_pool",
) -> torch.Tensor:
    """Distance of a student's activation maps from its teacher's, on normalised planes.

    With s and t the planes of one channel of one image, each divided by its L2 norm over H × W:

    - ``eq2`` (paper B, equation 2): ‖s - t‖, averaged over planes, then over the batch; in
      [0, 2] for any size of batch.
    - ``batch_frobenius`` (what the authors' code computes): one L2 norm of s - t over the whole
      batch, its planes and pixels; grows with the square root of both counts.
    - ``zagoruyko`` (Zagoruyko and Komodakis 2017): one map per image, the mean of squares over
      channels, divided by its L2 norm; the mean of (s - t)² over images and pixels. The numbers
      of channels may differ.

    Where the student's or the teacher's plane is all zero (see ``NORM_FLOOR``), it has no
    direction to compare: the pair contributes 0, with zero gradient, and still counts in the
    mean. Plain division would give NaN there, and an epsilon beside the norm gradients of 1e9.
    Equal planes have zero gradient too.

    Args:
        student: (N, C, H, W).
        teacher: (N, c, h, w), c = C unless ``zagoruyko``; no gradient flows into it.
        matching: how the teacher's planes (``zagoruyko``: its maps) are brought to H × W:
            averaged over cells, or interpolated bilinearly.

    Returns:
        A scalar, float32 whatever the autocast (float64 for float64 input).

    Raises:
        ConfigurationError: a tensor is not (N, C, H, W), its planes are 1 × 1, or the batches or
            planes differ in number.
    """
    _check_shapes(student, teacher, reduction)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = _at_least_float32(student), _at_least_float32(teacher.detach())
        if reduction == "zagoruyko":
            return _zagoruyko(attention_map(student), attention_map(teacher), matching)
        teacher = match_size(teacher, student.shape[-2:], matching)
        if reduction == "eq2":
            return plane_distances(student, teacher)[0].mean()
        return _root(_squared_distances(student, teacher)[0].sum())


def weighted(
    attention: torch.Tensor, beta: float, weight_mode: Literal["divide", "multiply"] = "divide"
) -> torch.Tensor:
    """Returns what the attention loss adds to the total: divided by β, or multiplied.

    Equation 1 of paper B prints + β L, but its text ("when β decreases, the impact of attention
    loss increases") and the authors' code divide.
    """
    return attention / beta if weight_mode == "divide" else attention * beta


def plane_distances(
    student: torch.Tensor, teacher: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measures how far normalised planes are apart, one by one.

    Args:
        student: float32 or float64 (N, C, H, W).
        teacher: of the same shape and type.

    Returns:
        ‖s - t‖, (N, C) in [0, 2], and bool (N, C): whether neither plane is all zero; where one
        is, the distance is 0.
    """
    squares, counts = _squared_distances(student, teacher)
    return _root(squares), counts


def attention_map(activation: torch.Tensor) -> torch.Tensor:
    """Sums activation planes up into one map: the mean of squares over channels.

    Args:
        activation: (N, C, H, W).

    Returns:
        (N, 1, H, W), 0 or more; float32, or float64 for float64 input.
    """
    return _at_least_float32(activation).square().mean(1, keepdim=True)


def match_size(
    planes: torch.Tensor, size: torch.Size | tuple[int, int], matching: Matching = "adaptive_pool"
) -> torch.Tensor:
    """Brings planes to a height and width.

    Args:
        planes: float (N, C, h, w).
        size: (H, W).
        matching: ``adaptive_pool`` averages over cells, and repeats where planes grow;
            ``interpolate`` is bilinear, with a wider filter where planes shrink.

    Returns:
        float (N, C, H, W).
    """
    size = (int(size[0]), int(size[1]))
    if tuple(planes.shape[-2:]) == size:
        return planes
    if matching == "adaptive_pool":
        return functional.adaptive_avg_pool2d(planes, size)
    return functional.interpolate(planes, size, mode="bilinear", antialias=True)


def check_planes(activation: torch.Tensor, whose: str) -> None:
    """Refuses an activation that is not (N, C, H, W), or whose planes are single numbers.

    A plane of one number, divided by its norm, is 1 or -1 whatever the image shows.

    Args:
        activation: what a tap gave.
        whose: ``student`` or ``teacher``, for the message.

    Raises:
        ConfigurationError: it has another number of dimensions, or H × W is 1 × 1.
    """
    if activation.ndim != 4:
        raise ConfigurationError(
            f"attention: the {whose}'s tap gives a tensor of shape {tuple(activation.shape)}; "
            "expected (images, planes, height, width). Tap a layer before the global pooling"
        )
    if activation.shape[2:].numel() == 1:
        raise ConfigurationError(
            f"attention: the {whose}'s tap gives planes of 1 × 1 ({activation.shape[1]} of them), "
            "which have no direction to compare. Take larger images (preprocessing.height and "
            "width, or another packing), or tap an earlier layer"
        )


def _check_shapes(student: torch.Tensor, teacher: torch.Tensor, reduction: Reduction) -> None:
    check_planes(student, "student")
    check_planes(teacher, "teacher")
    if len(student) != len(teacher):
        raise ConfigurationError(
            f"attention: the student's tap gives {len(student)} images and the teacher's "
            f"{len(teacher)}; both must see the same batch"
        )
    if reduction != "zagoruyko" and student.shape[1] != teacher.shape[1]:
        raise ConfigurationError(
            f"attention: the student's tap has {student.shape[1]} planes and the teacher's "
            f"{teacher.shape[1]}, but reduction {reduction} compares plane by plane. Tap layers "
            "with equally many planes, or set reduction: zagoruyko"
        )


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _squared_distances(
    student: torch.Tensor, teacher: torch.Tensor, floor: float = NORM_FLOOR
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ‖s - t‖² per plane, (N, C), 0 where either is all zero, and where neither is."""
    student, student_counts = _normalised(student.flatten(2), floor)
    teacher, teacher_counts = _normalised(teacher.flatten(2), floor)
    counts = student_counts & teacher_counts
    return torch.where(counts, (student - teacher).square().sum(2), 0.0), counts


def _normalised(planes: torch.Tensor, floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Divides planes (N, C, P) by their L2 norm; says which (N, C) are not all zero."""
    squares = planes.square().sum(2, keepdim=True)
    counts = squares > floor**2
    # Replacing the norm, and not only the result, keeps 0 / 0 out of the backward pass too.
    return planes / torch.where(counts, squares, 1.0).sqrt(), counts.squeeze(2)


def _root(squares: torch.Tensor) -> torch.Tensor:
    """Square root whose gradient at 0 is 0."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)


def _zagoruyko(student: torch.Tensor, teacher: torch.Tensor, matching: Matching) -> torch.Tensor:
    teacher = match_size(teacher, student.shape[-2:], matching)
    # Maps are made of squares, and so is their floor.
    squares, _ = _squared_distances(student, teacher, NORM_FLOOR**2)
    return squares.mean() / student[0].numel()
