"""What of a network its weights do not show, so that foreign weights fit whatever it is."""

from typing import Any

from torch import nn

from nakt_dist.models.registry import find_network, is_classifier
from nakt_dist.models.spec import ModelSpec

_ACTIVATIONS = tuple(
    getattr(nn, name)
    for name in (
        "CELU", "ELU", "GELU", "Hardswish", "LeakyReLU", "Mish", "PReLU", "ReLU", "ReLU6", "SELU",
        "SiLU", "Softplus",
    )
)  # fmt: skip


def assumed_options(spec: ModelSpec) -> dict[str, Any]:
    """Returns the options that leave no trace in the weights and that nobody stated.

    Returns:
        Their values by name, such as ``decoder_atrous_rates``; ``model.options`` sets them.
    """
    found = find_network(spec.name)
    options = getattr(found and found.load(), "options_without_trace", None)
    return options(spec.name, spec.options) if options else {}


def describe_assumed_design(name: str, spec: ModelSpec, network: nn.Module) -> str:
    """Says what was assumed of a network of others beside its weights."""
    options = assumed_options(spec)
    settable = ", ".join(f"{option} {_spell(value)}" for option, value in options.items())
    parts = [f"{settable} (model.options sets them)"] if options else []
    if is_classifier(spec.name) and spec.num_outputs > 1 and "softmax" not in spec.options:
        parts.append("a sigmoid of each output (model.options.softmax: true where one holds)")
    modules = list(network.modules())
    if "decoder_atrous_rates" not in options:
        dilations = {m.dilation[0] for m in modules if isinstance(m, nn.Conv2d)} - {1}
        if dilations and "decoder_atrous_rates" not in spec.options:
            parts.append(f"dilations {', '.join(map(str, sorted(dilations)))}")
    parts += sorted(
        {type(module).__name__ for module in modules if isinstance(module, _ACTIVATIONS)}
    )
    stated = (getattr(module, "eps", None) for module in modules)
    epsilons = {each for each in stated if isinstance(each, float)}
    parts += [f"normalisation's epsilon {each:g}" for each in sorted(epsilons)]
    return (
        f"{name}: its file fits {spec.name} and does not say what leaves no trace in weights. "
        f"Assumed: {', '.join(parts) or 'nothing'}; compare with how it was built"
    )


def _spell(value: Any) -> str:
    return str(list(value)) if isinstance(value, list | tuple) else str(value)
