"""Settings that differ in a few values are parsed once, and are what the parser makes of each."""

from typing import Any

from nakt_dist.cli import parse_config
from nakt_dist.config.repeated import RepeatedReader


def test_weights_and_parts_of_a_study_are_parsed_once() -> None:
    parsed: list[Any] = []

    def parse(values: Any) -> Any:
        parsed.append(values)
        return parse_config("train", [], values)

    reader = RepeatedReader(parse)
    for beta, parts, seed in ((1, "all", 0), (2000, "last34", 1), (5, "all", 2)):
        values = {
            "task": "classification",
            "output": f"runs/{beta}",
            "data": {"dataset": "shards"},
            "recipe": {"steps": 1},
            "trainable": parts,
            "teacher": {"weights": "w", "attention": {"preset": "paper", "beta": beta}},
            "seed": seed,
        }
        config = reader.read(values)
        assert config == parse_config("train", [], values)
        assert type(config.teacher.attention.beta) is float
    assert len(parsed) == 1
