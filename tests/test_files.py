"""Files are whole under their names, whatever happens while they are written."""

import errno
import os

import pytest

from d3dnet.files import remove, size_of, sync, write_whole, written_whole


def test_a_file_has_its_old_content_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "state"
    write_whole(path, b"old")
    with written_whole(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["state"]


def test_after_an_exception_the_old_content_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "state"
    write_whole(path, b"old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_going_on(
    tmp_path, monkeypatch
):
    happened = []
    replace, fsync = os.replace, os.fsync

    def watched_fsync(descriptor):
        happened.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def watched_replace(before, after):
        happened.append("named")
        replace(before, after)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not say which file a descriptor is of")
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_whole(tmp_path / "state", b"new")
    assert happened == ["state.part", "named", tmp_path.name]


def test_a_file_system_that_cannot_sync_folders_is_no_hindrance(tmp_path, monkeypatch):
    def cannot(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")


def test_a_folder_is_as_large_as_its_files_and_is_removed_with_them(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one").write_bytes(b"123")
    (folder / "two").write_bytes(b"4567")
    assert (size_of(folder), size_of(folder / "two")) == (7, 4)
    remove(folder)
    remove(tmp_path / "nothing there")
    assert os.listdir(tmp_path) == []
