"""What ``auto`` means in a recipe: the precision and memory format that are fastest here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nakt_dist.config import RecipeConfig
from nakt_dist.runtime.deepspeed_launch import uses_deepspeed
from nakt_dist.runtime.devices import gpu_is_wanted, multiplies_bf16

_KNOWN: dict[str, tuple[Any, ...]] = {
    "precision": ("no", "bf16", "fp16"),
    "channels_last": (True, False),
}


def resolve(recipe: RecipeConfig, device: str, begun: Mapping[str, Any]) -> RecipeConfig:
    """Replaces each ``auto`` by what the run began with, or else by what is fastest here.

    bf16 is chosen where matrices of it are multiplied by units of their own: on a GPU, or a CPU
    with AMX. AVX-512's bf16 alone takes up to 1.4 times as long as float32. ``channels_last`` is
    chosen but for a float32 network on a GPU, and for DeepSpeed, which flattens weights.

    Args:
        device: ``auto`` or ``cpu``.
        begun: recipe of the run in the output so far; empty where there is none.
    """
    stored = {name: begun[name] for name, known in _KNOWN.items() if begun.get(name) in known}
    precision = recipe.precision
    if precision == "auto":
        precision = stored.get("precision") or ("bf16" if multiplies_bf16(device) else "no")
    channels_last = recipe.channels_last
    if channels_last == "auto":
        suits = precision != "no" or not gpu_is_wanted(device)
        channels_last = stored.get("channels_last", suits and not uses_deepspeed())
    return replace(recipe, precision=precision, channels_last=channels_last)


def describe(recipe: RecipeConfig) -> str:
    """Says the precision and memory format of a resolved recipe."""
    precision = {"no": "float32"}.get(recipe.precision, f"{recipe.precision} autocast")
    return precision + (", channels last" if recipe.channels_last else "")
