"""A log, a terminal or a locale that lacks characters: they are replaced, and nothing ends."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nakt_dist.cli import STAGES, main
from nakt_dist.runtime.characters import look_alike, replace_unprintable
from nakt_dist.runtime.processes import say
from tests.datasets import make_packed_dataset

SOURCES = Path(__file__).parents[2] / "nakt_dist"


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch):
    """Puts streams of an encoding in the places of stdout and stderr; returns what came."""

    def put(encoding, kind=io.TextIOWrapper):
        streams = [kind(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            monkeypatch.setattr(sys, name, stream)

        def printed():
            for stream in streams:
                stream.flush()
            return [stream.buffer.getvalue().decode(encoding) for stream in streams]

        return printed

    return put


def run_nakt(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nakt_dist", *words],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        {"LC_ALL": "", "LANG": "de_DE.ISO-8859-1"},
    ],
    ids=str,
)
def test_the_program_explains_itself_in_any_encoding(environment):
    ended = run_nakt("--help", **environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"usage: nakt STAGE" in ended.stdout
    assert re.search(rb"--dotted\.key value (\.\.\.|\xe2\x80\xa6)\]", ended.stdout)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_explains_its_settings_in_ascii(stage, narrow):
    printed = narrow("ascii")
    with pytest.raises(SystemExit) as ended:
        main([stage, "--help"])
    assert ended.value.code == 0
    assert f"usage: nakt {stage}" in printed()[0]


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("ascii", io.TextIOWrapper), ("ascii", Terminal), ("latin-1", Terminal)],
)
def test_stages_print_tables_and_bars_in_any_encoding(encoding, kind, narrow, undrawn, tmp_path):
    printed = narrow(encoding, kind)
    dataset = str(make_packed_dataset(tmp_path))
    train = [
        f"--output={tmp_path / 'run'}", f"--data.dataset={dataset}", "--recipe.steps=1",
        "--model.name=unet", '--model.options={"base_channels": 4}', "--device=cpu", "--threads=1",
    ]  # fmt: skip
    assert main(["doctor", "train", *train]) == 0
    assert main(["train", *train]) == 0
    assert main(["inspect", dataset]) == 0
    evaluate = [f"--weights={tmp_path / 'run'}", f"--dataset={dataset}", "--splits=null"]
    evaluated = tmp_path / "evaluated"
    few = ["--device=cpu", "--bootstrap_samples=20"]
    assert main(["evaluate", *evaluate, f"--output={evaluated}", *few]) == 0
    assert main(["report", str(evaluated), f"--output={tmp_path / 'page'}"]) == 0
    out, errors = printed()
    assert "32x32" in out if encoding == "ascii" else "32×32" in out
    assert "squares" in out
    assert "train run" in errors


def test_an_error_names_what_an_encoding_lacks_by_its_look(narrow):
    printed = narrow("ascii")
    assert main(["verify", "/absent/Prüfung “α” 1×8…"]) == 1
    assert 'Prufung "alpha" 1x8...' in printed()[1]


def test_a_name_of_bytes_that_are_no_text_is_printed(narrow):
    printed = narrow("utf-8")
    replace_unprintable()
    say("patient_\udcff")
    print("patient_\udcff")
    assert printed() == ["patient_?\n", "patient_?\n"]


def test_everything_that_the_program_writes_has_a_look_in_ascii():
    written = {
        character
        for path in SOURCES.rglob("*.py")
        for character in path.read_text(encoding="utf-8")
        if not character.isascii()
    }
    assert "…" in written
    nameless = {each for each in written if look_alike(each) == "?"}
    assert nameless <= set("₋∩⚠")


def test_no_module_leaves_the_encoding_of_a_file_to_the_locale():
    bare = [
        f"{path.relative_to(SOURCES)}:{number}: {line.strip()}"
        for path in sorted(SOURCES.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\.(read|write)_text\(|(?<![\w.])open\(|\.open\(\"[wart]\"|text=True", line)
        and not re.search(r'encoding=|def open|"[rwax]\+?b|O_|opener=|subprocess', line)
    ]
    assert bare == []
