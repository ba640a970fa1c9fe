"""Files are written whole or not at all; damaged archives are named with the problem."""

from __future__ import annotations

import os
import pickle
import stat
import threading

import numpy as np
import pytest

from fastloss import files
from fastloss.files import DataFormatError


def names_in(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def interrupted(path, error: BaseException) -> None:
    """Write half of a file, and stop with the error."""
    with files.written_whole(path) as stream:
        stream.write(b"half")
        raise error


# Writing


@pytest.mark.parametrize(("content", "expected"), [("é\n", b"\xc3\xa9\n"), (b"\xff", b"\xff")])
def test_text_and_bytes_are_written_and_folders_made(tmp_path, content, expected):
    path = tmp_path / "new" / "folder" / "file"
    for _ in range(2):
        files.write(path, content)
        assert path.read_bytes() == expected
        assert names_in(path.parent) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), OSError(28, "disk full")])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_while_writing_changes_nothing(tmp_path, error, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert names_in(tmp_path) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with files.written_whole(path) as first, files.written_whole(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["file"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    files.write(path, "content")
    assert path.read_text() == "content"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, exists):
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to("elsewhere/file")
    files.check_writable(link)
    files.write(link, "new")
    assert os.readlink(link) == "elsewhere/file"
    assert target.read_text() == "new"
    assert names_in(tmp_path) == ["elsewhere", "link"]
    assert names_in(target.parent) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_are_kept(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    files.write(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_permissions_of_a_new_file_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "file", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    files.check_writable(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with files.written_whole(pipe) as stream:
        np.savez(stream, W=np.arange(3))
    reader.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names_in(tmp_path) == ["pipe"]
    (tmp_path / "copy.npz").write_bytes(received[0])
    np.testing.assert_array_equal(files.read_archive(tmp_path / "copy.npz")["W"], np.arange(3))


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null")
def test_a_device_is_written_to_and_stays(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "link"):
        files.check_writable(path)
        with files.written_whole(path) as stream:
            np.savez(stream, W=np.arange(3))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        files.write("/dev/full", "content")


def write_or_check(function, path) -> None:
    function(path, "content") if function is files.write else function(path)


@pytest.mark.parametrize("function", [files.write, files.check_writable])
def test_a_read_only_folder_is_named(tmp_path, function):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write to any folder")
    with pytest.raises(PermissionError, match=r"cannot write: .*'.*/folder/file'"):
        write_or_check(function, folder / "file")


@pytest.mark.parametrize("function", [files.write, files.check_writable])
def test_places_that_cannot_be_files_are_named(tmp_path, function):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write: .*'.*/file/inside'"):
        write_or_check(function, tmp_path / "file" / "inside")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_or_check(function, tmp_path)
    assert names_in(tmp_path) == ["file"]


def test_checking_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("old")
    for name in ("file", "other"):
        files.check_writable(tmp_path / name)
    assert names_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


# Archives


@pytest.fixture
def archive(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.arange(6.0), y=np.arange(3))
    return tmp_path / "a.npz"


def test_an_archive_is_read_whole_or_by_choice(archive):
    whole = files.read_archive(archive)
    assert list(whole) == ["X", "y"]
    np.testing.assert_array_equal(whole["X"], np.arange(6.0))
    assert list(files.read_archive(archive, lambda names: names[1:])) == ["y"]
    assert files.read_archive(archive, lambda names: ()) == {}


def test_a_missing_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_archive(tmp_path / "absent")


def test_any_damage_is_a_data_format_error(archive):
    whole = archive.read_bytes()
    for cut in range(0, len(whole), 7):
        archive.write_bytes(whole[:cut])
        with pytest.raises(DataFormatError, match=r"a\.npz") as caught:
            files.read_archive(archive)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "an empty file"), (b"%PDF-1.7", "it starts with b'%PDF'")]
)
def test_a_foreign_file_is_refused_with_its_first_bytes(archive, content, found):
    archive.write_bytes(content)
    with pytest.raises(DataFormatError) as caught:
        files.read_archive(archive)
    assert str(caught.value) == f"{archive}, byte 0: expected an .npz (zip) archive, found {found}"


def test_objects_in_an_archive_are_refused(archive):
    np.savez(archive, X=np.array([{}], object))
    with pytest.raises(DataFormatError, match=r"archive of plain arrays \(.*pickle"):
        files.read_archive(archive)


def test_error_message_and_pickling():
    error = DataFormatError("a.bin", "bad", 7)
    assert isinstance(error, ValueError)
    assert str(error) == "a.bin, byte 7: bad"
    assert str(DataFormatError("a.bin", "bad")) == "a.bin: bad"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error.offset == 7
