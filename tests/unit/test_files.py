import hashlib
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import (
    atomic_write,
    differing_fields,
    file_sha256,
    read_json,
    remove_unfinished,
    value_sha256,
    with_new_nulls,
    write_bytes,
    write_json,
    write_new_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as stream:
        stream.write(b"first")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_kill_in_the_middle_leaves_its_remains_in_the_staging_folder(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    script = (
        "import os, sys; from pathlib import Path\n"
        "from nakt_dist.runtime.files import atomic_write\n"
        "folder = Path(sys.argv[1])\n"
        "with atomic_write(folder / 'file', folder / 'staging') as stream:\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["staging"]
    assert len(names(staging)) == 1


def test_a_written_file_can_be_sought_in(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as stream:
        stream.write(b"a__")
        stream.seek(1)
        stream.write(b"bc")
    assert path.read_bytes() == b"abc"


@pytest.fixture(params=[True, False], ids=["hard_links", "no_hard_links"])
def hard_links(request, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    if not request.param:
        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("hard_links")
def test_of_two_that_write_one_file_the_first_to_end_keeps_its_name(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileExistsError), atomic_write(path, replace=False) as late:
        late.write(b"late")
        with atomic_write(path, replace=False) as first:
            first.write(b"first")
    assert path.read_bytes() == b"first"
    assert not write_new_json(path, {})
    assert write_new_json(tmp_path / "new", {"a": 1})
    assert read_json(tmp_path / "new", "value") == {"a": 1}
    assert names(tmp_path) == ["file", "new"]


def test_a_secret_is_never_readable_for_others_not_even_unfinished(tmp_path):
    with atomic_write(tmp_path / "secret", mode=0o600) as stream:
        assert stat.S_IMODE(os.fstat(stream.fileno()).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_equal_values_give_equal_bytes_of_json(tmp_path):
    write_json(tmp_path / "one", {"a": [1, {"c": 2, "b": 3}], "z": None})
    write_json(tmp_path / "two", {"z": None, "a": [1, {"b": 3, "c": 2}]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_json(tmp_path / "one", "value") == {"a": [1, {"b": 3, "c": 2}], "z": None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b'{"a": 1', "cannot be read"),
        (b"\xff\xfe\x00{", "cannot be read"),
        (b"[" * 200_000, "cannot be read"),
        (b"[1]", "holds a list, expected an object"),
        (b'"text"', "holds a str, expected an object"),
    ],
    ids=["empty", "cut", "not_unicode", "nested_deeply", "list", "text"],
)
def test_a_damaged_json_file_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words) as caught:
        read_json(path, "run record")
    assert str(path) in str(caught.value)
    assert "run record" in str(caught.value)


def test_an_absent_json_file_and_a_folder_in_its_place_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no run record here"):
        read_json(tmp_path / "absent.json", "run record")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_json(tmp_path, "run record")


def test_the_fingerprint_of_a_file_is_its_sha256(tmp_path):
    data = os.urandom((1 << 20) + 17)  # more than one chunk
    write_bytes(tmp_path / "file", data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_fingerprint_of_a_value_depends_on_its_content_alone():
    value = {"a": 1, "b": {"é": [1.5, None]}}
    reordered = {"b": {"é": [1.5, None]}, "a": 1}
    assert value_sha256(value) == value_sha256(reordered)
    assert value_sha256(value) == value_sha256(json.loads(json.dumps(value)))
    assert value_sha256(value) != value_sha256({**value, "a": 2})
    assert value_sha256([1, 2]) != value_sha256([2, 1])


def test_of_two_fingerprints_it_is_said_that_they_differ():
    one, other = "a" * 64, "0123456789ab" + "c" * 52
    assert differing_fields({"x": {"f": one}}, {"x": {"f": other}}) == ["x.f: differs"]
    assert differing_fields({"f": other}, {}) == ["f: found '0123456789ab…', expected 'nothing'"]
    assert differing_fields({"f": [other]}, {"f": [one, one]}) == [
        "f: found ['0123456789ab…'], expected ['aaaaaaaaaaaa…', 'aaaaaaaaaaaa…']"
    ]
    assert differing_fields({"f": "0x" + one}, {"f": one})[0].startswith("f: found")


def test_a_setting_that_came_later_is_no_difference_while_it_is_null():
    now = {"recipe": {"epochs": 4, "later": None, "other": 1}, "table": None}
    stored = with_new_nulls({"recipe": {"epochs": 3}}, now)
    assert stored == {"recipe": {"epochs": 3, "later": None}, "table": None}
    assert differing_fields(stored, now) == [
        "recipe.epochs: found 3, expected 4", "recipe.other: found 'nothing', expected 1",
    ]  # fmt: skip


def test_differing_fields_are_named_with_both_values_at_any_depth():
    found = {"same": 1, "seed": 0, "image": {"height": 64, "width": 64}, "gone": True}
    expected = {"same": 1, "seed": 7, "image": {"height": 32, "width": 64}, "new": []}
    assert differing_fields(found, expected) == [
        "gone: found True, expected 'nothing'",
        "image.height: found 64, expected 32",
        "new: found 'nothing', expected []",
        "seed: found 0, expected 7",
    ]
    assert differing_fields(found, dict(reversed(found.items()))) == []


def test_what_a_kill_left_is_removed_and_what_a_link_points_to_stays(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("theirs")
    output = tmp_path / "output"
    (output / ".step.tmp").mkdir(parents=True)
    (output / ".step.tmp" / "part").touch()
    (output / ".file.tmp").touch()
    (output / ".link.tmp").symlink_to(victim)
    (output / ".dangling.tmp").symlink_to(tmp_path / "nowhere")
    (output / "kept.tmp").touch()
    remove_unfinished(output)
    assert names(output) == ["kept.tmp"]
    assert names(victim) == ["file"]
