"""Tests that files are written whole or not at all, and that errors name damaged archives."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastloss import files
from fastloss.files import DataFormatError


def names_in(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def interrupted(path, error: BaseException) -> None:
    """Write half of a file, then raise the error."""
    with files.written_whole(path) as stream:
        stream.write(b"half")
        raise error


# Writing


@pytest.mark.parametrize(("content", "expected"), [("é\n", b"\xc3\xa9\n"), (b"\xff", b"\xff")])
def test_write_makes_folders_for_text_and_bytes(tmp_path, content, expected):
    path = tmp_path / "new" / "folder" / "file"
    for _ in range(2):
        files.write(path, content)
        assert path.read_bytes() == expected
        assert names_in(path.parent) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), OSError(28, "disk full")])
@pytest.mark.parametrize("old", [None, b"old"])
def test_error_while_writing_changes_nothing(tmp_path, error, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)):
        interrupted(path, error)
    assert names_in(tmp_path) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "file"
    with files.written_whole(path) as first, files.written_whole(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == ["file"]


def test_longest_file_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    files.write(path, "content")
    assert path.read_text() == "content"


@pytest.mark.parametrize("exists", [True, False])
def test_link_stays_and_its_target_is_replaced(tmp_path, exists):
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
def test_pipe_is_written_to_and_stays(tmp_path):
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
def test_device_is_written_to_and_stays(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "link"):
        files.check_writable(path)
        with files.written_whole(path) as stream:
            np.savez(stream, W=np.arange(3))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_device_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        files.write("/dev/full", "content")


def write_or_check(function, path) -> None:
    function(path, "content") if function is files.write else function(path)


@pytest.mark.parametrize("function", [files.write, files.check_writable])
def test_read_only_folder_is_named_in_the_error(tmp_path, function):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write to any folder")
    with pytest.raises(PermissionError, match=r"cannot write: .*'.*/folder/file'"):
        write_or_check(function, folder / "file")


@pytest.mark.parametrize("function", [files.write, files.check_writable])
def test_folder_as_a_file_is_named_in_the_error(tmp_path, function):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write: .*'.*/file/inside'"):
        write_or_check(function, tmp_path / "file" / "inside")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_or_check(function, tmp_path)
    assert names_in(tmp_path) == ["file"]


def test_check_writable_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("old")
    for name in ("file", "other"):
        files.check_writable(tmp_path / name)
    assert names_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def written_with_interrupts(path, n_interrupts: int) -> None:
    with files.written_whole(path) as stream:
        stream.write(b"whole")
        for _ in range(n_interrupts):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("n_interrupts", "left"), [(1, ["file"]), (2, [])])
def test_first_ctrl_c_waits_for_the_file_second_does_not(tmp_path, n_interrupts, left):
    with pytest.raises(KeyboardInterrupt):
        written_with_interrupts(tmp_path / "file", n_interrupts)
    assert names_in(tmp_path) == left
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_is_not_hidden_by_an_unclosed_archive(tmp_path):
    error = ValueError("Can't close the ZIP file")
    error.__context__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "file", error)
    assert names_in(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="no names for open streams")
@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "link"])
def test_open_stream_is_written_at_its_position(tmp_path, place):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = """if True:
        import sys
        from fastloss import files
        print("before")
        files.check_writable(sys.argv[1])
        files.write(sys.argv[1], "written\\n")
        print("after")"""
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-c", code, place]
        subprocess.run(command, cwd=tmp_path, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nwritten\nafter\n"


# Outputs


@pytest.fixture
def named_twice(tmp_path, monkeypatch):
    """Return a folder: a file with two names, a folder with two, and links to a missing file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()
    os.link("a", "hard")
    os.symlink("a", "soft")
    os.symlink("folder", "other")
    for name in ("new1", "new2"):
        os.symlink("folder/new", name)
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("a", "a"), ("a", "hard"), ("a", "soft"), ("a", "folder/../a"), ("./a", "a")),
        *(("new1", "new2"), ("folder/new", "new1"), ("folder/x", "other/x"), ("x/y", "x/../x/y")),
    ],
)
def test_two_names_of_one_file_are_refused(named_twice, one, other):
    expected = f"--two {other} and --one {one} are the same file; name another one"
    with pytest.raises(ValueError, match=expected.replace("/..", "/[.][.]")):
        files.check_outputs([("--one", one), ("--two", other)], [])
    if (named_twice / one).exists():
        with pytest.raises(ValueError, match="are the same file"):
            files.check_outputs([("--two", other)], [("--one", one)])
    files.check_outputs([("--one", named_twice / one), ("--two", "b")], [("input", "c")])
    assert (named_twice / "a").read_text() == "old"
    assert names_in(named_twice / "folder") == []


def test_file_behind_standard_output_is_refused(tmp_path):
    code = "from fastloss import files; files.check_outputs([('--json', 'out')], [])"
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=out, stderr=subprocess.PIPE
        )
    assert b"--json out and standard output are the same file" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null")
def test_device_takes_several_outputs():
    files.check_outputs([("--one", "/dev/null"), ("--two", "/dev/null")], [])


def test_unwritable_output_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        files.check_outputs([("--one", tmp_path / "a"), ("--two", tmp_path)], [])


# Archives


@pytest.fixture
def archive(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.arange(6.0), y=np.arange(3))
    return tmp_path / "a.npz"


def test_archive_is_read_whole_or_by_choice(archive):
    whole = files.read_archive(archive)
    assert list(whole) == ["X", "y"]
    np.testing.assert_array_equal(whole["X"], np.arange(6.0))
    assert list(files.read_archive(archive, lambda names: names[1:])) == ["y"]
    assert files.read_archive(archive, lambda names: ()) == {}


def test_missing_archive_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_archive(tmp_path / "absent")


def test_truncated_archive_is_a_data_format_error(archive):
    whole = archive.read_bytes()
    for cut in range(0, len(whole), 7):
        archive.write_bytes(whole[:cut])
        with pytest.raises(DataFormatError, match=r"a\.npz") as caught:
            files.read_archive(archive)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"), [(b"", "an empty file"), (b"%PDF-1.7", "it starts with b'%PDF'")]
)
def test_foreign_file_is_refused_with_its_first_bytes(archive, content, found):
    archive.write_bytes(content)
    with pytest.raises(DataFormatError) as caught:
        files.read_archive(archive)
    assert str(caught.value) == f"{archive}, byte 0: expected an .npz (zip) archive, found {found}"


def test_objects_in_an_archive_are_refused(archive):
    np.savez(archive, X=np.array([{}], object))
    with pytest.raises(DataFormatError, match=r"archive of plain arrays \(.*pickle"):
        files.read_archive(archive)


def test_archive_of_another_kind_is_not_replaced(archive, tmp_path):
    files.check_archive(archive, "X")
    with pytest.raises(FileExistsError, match=r"another archive is there, of X, y; .*a\.npz"):
        files.check_archive(archive, "model")
    for content in (b"", b"PK damaged", b"other"):
        (tmp_path / "b").write_bytes(content)
        files.check_archive(tmp_path / "b", "model")
    files.check_archive(tmp_path / "absent", "model")


def test_data_format_error_keeps_message_and_offset_when_pickled():
    error = DataFormatError("a.bin", "bad", 7)
    assert isinstance(error, ValueError)
    assert str(error) == "a.bin, byte 7: bad"
    assert str(DataFormatError("a.bin", "bad")) == "a.bin: bad"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error.offset == 7
