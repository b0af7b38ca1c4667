"""How long does augmentation take, beside plain torch, torchvision, kornia and OpenCV?

Stored batches (uint8) become augmented float32 ones. Ours and plain torch, which is what ours was
before it was made fast, draw parameters for each sample from (seed, epoch, sample); so does OpenCV
here, by our generator: it resamples whole grey levels and looks gamma and contrast up in a table.
Torchvision and kornia draw theirs from torch's generator; they crop and turn likewise, torchvision
one sample at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.comparing import Scale, Table, Way, at_least, in_turns
from nakt_dist.config import AugmentationConfig
from nakt_dist.loading.augmentation import AugmentationParameters, augment, draw_parameters
from nakt_dist.loading.counted_random import uniform_rows
from nakt_dist.runtime.freed_memory import keep_freed_memory

CHEST = AugmentationConfig(
    smallest_crop=1.0, largest_rotation=15.0, gamma=(1.0, 1.0), contrast=(1.0, 1.0)
)
FIVE = AugmentationConfig()
_NOTE = (
    "OpenCV is no part of nakt_dist: it is faster by what its row says, under a hundredth of a "
    "training step on a CPU, rounds to whole grey levels before gamma, and a second set of pixels "
    "would part runs with it from runs without."
)
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A batch and what is done to it.

    Attributes:
        title: of the table.
        config: of the augmentation.
        size: of both sides.
        with_mask: the target is a mask; otherwise findings.
        target: how many times the speed of plain torch is wanted: what OpenCV reached when a
            sample first took a core 1,480, 1,400 and 3,700 microseconds.
    """

    title: str
    config: AugmentationConfig
    size: int
    with_mask: bool
    target: float | None

    def batch(self, count: int, device: torch.device) -> Pair:
        """Returns smooth images as radiographs are, and discs or findings: uint8."""
        generator = torch.Generator().manual_seed(0)
        rough = torch.rand(count, 1, 16, 16, generator=generator)
        image = functional.interpolate(rough, (self.size, self.size), mode="bicubic").clamp(0, 1)
        target = (image > 0.5).to(torch.uint8) * 255 if self.with_mask else torch.zeros(count, 14)
        return (image * 255).to(torch.uint8).to(device), target.to(device)

    def drawn(self, numbers: np.ndarray, epoch: int) -> AugmentationParameters:
        """Returns our parameters of an epoch."""
        return draw_parameters(self.config, numbers, 0, epoch, self.size, self.size)


CASES = (
    Case("chest, 256² with findings", CHEST, 256, False, 1480 / 166),
    Case("five kinds, 256² with findings", FIVE, 256, False, 1400 / 345),
    Case("five kinds, 256² with mask", FIVE, 256, True, None),
    Case("five kinds, 384² with mask", FIVE, 384, True, 3700 / 1160),
)


def measure(scale: Scale) -> list[Table]:
    """Augments batches of 32, or of 128 on a GPU, and draws parameters."""
    keep_freed_memory()  # for all ways, as each stage has it
    device = torch.device("cuda" if scale.gpu else "cpu")
    torch.set_num_threads(1)
    count = scale.pick(128 if scale.gpu else 32, 2)
    tables = [_compared(case, count, device, scale) for case in CASES]
    return tables if scale.gpu else [*tables, _drawing(scale)]


def _compared(case: Case, count: int, device: torch.device, scale: Scale) -> Table:
    image, target = case.batch(count, device)
    numbers = np.arange(count)

    def repeated(work: Callable[[int], Any]) -> Way:
        repeats = scale.pick(50 if scale.gpu else 8, 1)

        def way() -> int:
            for epoch in range(repeats):
                work(epoch)
            if scale.gpu:
                torch.cuda.synchronize()
            return repeats * count

        return way

    def plain(epoch: int) -> Pair:
        return _plain_torch(image, target, case.drawn(numbers, epoch).to(device))

    def ours(epoch: int) -> Pair:
        return augment(image, target, case.drawn(numbers, epoch).to(device))

    ways = {
        "plain torch": repeated(plain),
        "nakt train": repeated(ours),
        "kornia": lambda: repeated(_with_kornia(case, image, target))(),
    }
    if not scale.gpu:
        ways["torchvision v2"] = lambda: repeated(_with_torchvision(case, image, target))()
        ways["OpenCV, by a table"] = repeated(
            lambda epoch: _opencv(image, target, case.drawn(numbers, epoch))
        )
    bounds = {}
    if case.target and not scale.gpu:
        bounds = {"nakt train": at_least(round(case.target, 1), "cpu")}
    return in_turns(case.title, ways, "plain torch", scale, bounds, note=_NOTE)


def _drawing(scale: Scale) -> Table:
    numbers = np.arange(32)

    def one_each(epoch: int) -> None:
        for number in numbers.tolist():
            bits = np.random.Philox(key=[0, epoch], counter=[0, 0, 1, number])
            np.random.Generator(bits).random(8)

    def drawn(draw: Callable[[int], Any]) -> Way:
        def way() -> int:
            for epoch in range(scale.pick(200, 1)):
                draw(epoch)
            return scale.pick(200, 1) * len(numbers)

        return way

    ways = {
        "a generator a sample": drawn(one_each),
        "nakt train": drawn(lambda epoch: uniform_rows(0, epoch, numbers, 8)),
    }
    return in_turns("random numbers of a batch of 32", ways, "a generator a sample", scale)


def _plain_torch(
    image: torch.Tensor, target: torch.Tensor, parameters: AugmentationParameters
) -> Pair:
    """Each stage on the whole batch, whether it does something or not."""
    with_mask = target.ndim == image.ndim
    both = torch.cat([image, target], dim=1) if with_mask else image
    both = both.float().div_(255)
    grid = functional.affine_grid(
        parameters.affine.contiguous(), list(both.shape), align_corners=False
    )
    both = functional.grid_sample(both, grid, align_corners=False)
    image, target = (both[:, :1], both[:, 1:]) if with_mask else (both, target)
    image = image.clamp(min=1e-6) ** parameters.gamma[:, None, None, None]
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * parameters.contrast[:, None, None, None]
    return image.clamp(0, 1), target.clamp(0, 1)


def _opencv(image: torch.Tensor, target: torch.Tensor, parameters: AugmentationParameters) -> Pair:
    import cv2

    cv2.setNumThreads(1)
    height, width = image.shape[-2:]
    levels = np.linspace(0, 1, 256)
    warped = np.empty((height, width), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = np.empty(image.shape, np.float32)
    masks = np.empty(target.shape, np.float32) if target.ndim == image.ndim else None
    maps = _in_pixels(parameters.affine.double().numpy(), height, width)
    for row, matrix in enumerate(maps):
        cv2.warpAffine(image[row, 0].numpy(), matrix, (width, height), warped, flags)
        table = levels ** float(parameters.gamma[row]) if parameters.has_gamma else levels
        if parameters.has_contrast:
            counts = cv2.calcHist([warped], [0], None, [256], [0, 256]).ravel()
            mean = float(counts @ table) / warped.size
            table = (mean + (table - mean) * float(parameters.contrast[row])).clip(0, 1)
        cv2.LUT(warped, table.astype(np.float32), found[row, 0])
        if masks is not None:
            cv2.warpAffine(target[row, 0].numpy(), matrix, (width, height), warped, flags)
            cv2.LUT(warped, levels.astype(np.float32), masks[row, 0])
    return torch.from_numpy(found), target if masks is None else torch.from_numpy(masks)


def _in_pixels(affine: np.ndarray, height: int, width: int) -> np.ndarray:
    """Turns maps between coordinates in [-1, 1] into maps between pixels, (N, 2, 3)."""
    half = np.array([width / 2, height / 2])
    linear = affine[:, :, :2] * half[:, None] / half
    shift = affine[:, :, 2] * half + (half - 0.5) - linear @ (half - 0.5)
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def _with_torchvision(
    case: Case, image: torch.Tensor, target: torch.Tensor
) -> Callable[[int], Any]:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    config, steps = case.config, []
    bilinear = v2.InterpolationMode.BILINEAR
    if config.smallest_crop < 1:
        smallest = config.smallest_crop**2
        steps.append(v2.RandomResizedCrop(case.size, (smallest, 1.0), antialias=True))
    steps += [v2.RandomHorizontalFlip(), v2.RandomRotation(config.largest_rotation, bilinear)]
    kinds: dict[Any, Any] = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.float32}
    steps.append(v2.ToDtype({**kinds, "others": None}, scale=True))
    if config.contrast != (1.0, 1.0):
        steps.append(v2.ColorJitter(contrast=config.contrast))
    transform = v2.Compose(steps)

    def one(row: int) -> Any:
        pixels = tv_tensors.Image(image[row])
        if case.with_mask:
            pixels, mask = transform(pixels, tv_tensors.Mask(target[row]))
        else:
            pixels, mask = transform(pixels), target[row]
        if config.gamma != (1.0, 1.0):
            pixels = pixels ** float(torch.empty(1).uniform_(*config.gamma))
        return pixels, mask

    return lambda epoch: torch.utils.data.default_collate([one(row) for row in range(len(image))])


def _with_kornia(case: Case, image: torch.Tensor, target: torch.Tensor) -> Callable[[int], Any]:
    from kornia import augmentation as kornia

    config, steps = case.config, []
    if config.smallest_crop < 1:
        smallest = config.smallest_crop**2
        size = (case.size, case.size)
        steps.append(kornia.RandomResizedCrop(size, (smallest, 1.0), cropping_mode="resample"))
    steps += [kornia.RandomHorizontalFlip(), kornia.RandomRotation(config.largest_rotation, p=1.0)]
    if config.gamma != (1.0, 1.0):
        steps.append(kornia.RandomGamma(config.gamma, p=1.0))
        steps.append(kornia.RandomContrast(config.contrast, p=1.0))
    keys = ["input", "mask"] if case.with_mask else ["input"]
    transform = kornia.AugmentationSequential(*steps, data_keys=keys)
    pixels = [image, target] if case.with_mask else [image]
    return lambda epoch: transform(*(each.float().div(255) for each in pixels))
