import sys

import fsspec
import pytest
from fsspec.registry import _registry

from nakt_dist.errors import DatasetError
from nakt_dist.shards.location import DatasetLocation


@pytest.fixture
def remote(tmp_path):
    """A URL below which files can be put."""
    url = f"memory://{tmp_path.name}/dataset"
    fsspec.filesystem("memory").makedirs(url)
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


def put(url, name, data):
    fsspec.filesystem("memory").pipe(f"{url}/{name}", data)


def test_local_files_are_used_where_they_are(tmp_path):
    location = DatasetLocation(tmp_path, cache=tmp_path / "cache")
    assert location.is_local
    assert location.local("file") == tmp_path / "file"
    assert location.refresh("file") == tmp_path / "file"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["scan 12:30", "a:b/c"])
def test_a_folder_with_a_colon_below_the_first_is_local(tmp_path, name):
    assert DatasetLocation(tmp_path / name).folder == tmp_path / name


def test_a_folder_with_a_colon_in_its_first_name_is_local_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan 12:30").mkdir()
    location = DatasetLocation("scan 12:30")
    assert location.is_local
    assert location.folder.is_dir()
    with pytest.raises(DatasetError, match="is not opened"):
        DatasetLocation("scan 12:31")


def test_a_leading_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DatasetLocation("~/dataset").folder == tmp_path / "dataset"
    assert DatasetLocation("/data/~").folder.as_posix() == "/data/~"
    with pytest.raises(DatasetError, match="no such home folder"):
        DatasetLocation("~no-such-user/dataset")


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(DatasetError, match="Run: pip install s3fs") as caught:
        DatasetLocation("s3://bucket/dataset", cache=tmp_path)
    assert "s3://bucket/dataset" in str(caught.value)


def test_a_malformed_url_is_told_as_ours(tmp_path):
    with pytest.raises(DatasetError, match="cannot be opened") as caught:
        DatasetLocation("zip://archive", cache=tmp_path)
    assert "zip:" in str(caught.value)


def test_a_remote_file_is_copied_once(tmp_path, remote):
    put(remote, "file", b"one")
    location = DatasetLocation(remote, cache=tmp_path)
    assert not location.is_local
    path = location.local("file")
    assert path.is_relative_to(tmp_path)
    put(remote, "file", b"two")
    assert location.local("file").read_bytes() == b"one"


def test_refreshing_fetches_what_is_there_now(tmp_path, remote):
    put(remote, "file", b"one")
    location = DatasetLocation(remote, cache=tmp_path)
    location.refresh("file")
    put(remote, "file", b"two")
    assert location.refresh("file").read_bytes() == b"two"


def test_a_copy_that_is_not_whole_is_fetched_again(tmp_path, remote):
    put(remote, "file", b"whole")
    location = DatasetLocation(remote, cache=tmp_path)

    def is_whole(path):
        return path.is_file() and path.stat().st_size == 5

    location.local("file", is_whole).write_bytes(b"who")
    assert location.local("file", is_whole).read_bytes() == b"whole"


def test_a_copy_of_another_version_does_not_stand_in(tmp_path, remote):
    location = DatasetLocation(remote, cache=tmp_path)
    for version, data in (("a" * 64, b"one"), ("b" * 64, b"two")):
        put(remote, "file", data)
        assert location.local("file", version=version).read_bytes() == data


def test_two_urls_do_not_share_copies(tmp_path, remote):
    put(f"{remote}/one", "file", b"one")
    put(f"{remote}/two", "file", b"two")
    copies = [
        DatasetLocation(f"{remote}/{name}", cache=tmp_path).local("file").read_bytes()
        for name in ("one", "two")
    ]
    assert copies == [b"one", b"two"]


def test_an_absent_remote_file_is_refused_by_url_and_leaves_no_part(tmp_path, remote):
    location = DatasetLocation(remote, cache=tmp_path)
    with pytest.raises(DatasetError, match=r"no file manifest\.json there") as caught:
        location.local("manifest.json")
    assert remote in str(caught.value)
    assert not [path for path in location.folder.iterdir() if not path.name.endswith(".lock")]


def test_an_error_of_a_storage_library_is_told_as_ours(tmp_path, remote, monkeypatch):
    location = DatasetLocation(remote, cache=tmp_path)

    def refuse(*arguments, **settings):
        raise RuntimeError("access denied")

    monkeypatch.setattr(location._remote, "open", refuse)
    with pytest.raises(DatasetError, match="cannot be fetched: access denied"):
        location.local("file")


@pytest.mark.parametrize(
    "url",
    [
        "pipe:touch {marker}",
        "pipe://touch {marker}",
        "pipe:cat a | touch {marker}",
        "no-such-storage://bucket/{marker}",
        "memory:{marker}",
    ],
)
def test_a_shell_command_or_unknown_storage_is_refused_and_nothing_runs(tmp_path, url):
    marker = tmp_path / "marker"
    with pytest.raises(DatasetError, match="is not opened"):
        DatasetLocation(url.format(marker=marker), cache=tmp_path / "cache")
    assert not marker.exists()
    assert not (tmp_path / "cache").exists()
