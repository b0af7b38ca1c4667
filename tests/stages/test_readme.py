"""The README's walk from a folder of images to a page: its commands, on few images."""

import re
import shlex
from pathlib import Path

import pytest

from nakt_dist.cli import main
from tests.datasets import publish_images

README = Path(__file__).parents[2] / "README.md"
SMALLER = {  # by stage and network
    "pack": ("--image.height=32", "--image.width=32", "--workers=1"),
    "train": ("--recipe.epochs=1", "--recipe.precision=no"),
    "evaluate": ("--bootstrap_samples=20",),
    "export": ("--formats=[safetensors]",),
    "deeplabv3plus": ("--model.options.encoder_name=resnet18",),
    "sdu_net": ("--model.options.base_channels=16",),
}


def commands(heading: str) -> list[list[str]]:
    """Returns the commands of the first block below a heading, word by word."""
    section = README.read_text().split(f"## {heading}\n")[1]
    block = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_walk_leads_from_a_folder_of_images_to_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_images(tmp_path / "data/ours", images=12)
    publish_images(tmp_path / "data/others", images=4, with_masks=False, seed=1)
    publish_images(tmp_path / "data/new", images=2, with_masks=False, seed=2)
    for program, stage, *words in commands("Your own images, from folder to page"):
        assert program == "nakt"
        # A teacher of one epoch is sure of nothing.
        words = [word.replace("alpha: 256, beta: 2.5", "alpha: 0, beta: 8") for word in words]
        smaller = [word for given in (stage, *words) for word in SMALLER.get(given, ())]
        assert main([stage, *words, *smaller]) == 0, (stage, words)
    page = (tmp_path / "page/report.html").read_text()
    assert "teacher" in page and "student" in page and "KTC" in page
    assert (tmp_path / "sheets/ours/masks.png").exists()
    assert "Dice" in (tmp_path / "runs/student-export/README.md").read_text()
    assert len(list((tmp_path / "masks/masks").glob("*.png"))) == 2
