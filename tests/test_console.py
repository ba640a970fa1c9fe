"""Tests of commands on any console: encodings, widths, pipes, backends of Matplotlib."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from fastloss import data


@pytest.fixture
def command(tmp_path):
    """Return a function that runs a command in its own process, in a folder with a data set."""
    rows = data.synthetic(100, 4, 3)
    np.savez(tmp_path / "d.npz", X=rows.X, y=rows.y)

    def run(*arguments: str, shell: str = '"$@"', **environment: str):
        return subprocess.run(
            ["bash", "-c", shell, "bash", sys.executable, "-m", "fastloss", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=100,
        )

    return run


TRAIN = ("train", "--data", "d.npz", "--epochs", "1", "--out", "o")


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp932", "latin-1"])
def test_micro_sign_is_written_in_any_encoding(encoding):
    code = "from fastloss.__main__ import _accept_any_character as f; f(); print('1 µs 猫')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode(encoding).strip() in ("1 us ?", "1 us 猫", "1 µs ?")


def test_lessons_are_listed_in_ascii(command):
    done = command("lesson", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "summary" in done.stdout.decode("ascii")


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
@pytest.mark.parametrize("options", [(), pytest.param(("--json", "-"), marks=pytest.mark.deep)])
def test_closed_pipe_costs_no_file(command, tmp_path, options):
    done = command(*TRAIN, *options, shell='"$@" | true; exit ${PIPESTATUS[0]}')
    assert done.stderr == b""
    assert (tmp_path / "o" / "confusion-dark.svg").exists()


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="no bash")
@pytest.mark.parametrize("closed", [pytest.param("2>&-", marks=pytest.mark.deep), ">&- 2>&-"])
def test_closed_streams_cost_no_file(command, tmp_path, closed):
    done = command(*TRAIN, shell=f'"$@" {closed}')
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "o" / "confusion-dark.svg").exists()


@pytest.mark.deep
def test_pictures_do_not_depend_on_mplbackend(command, tmp_path):
    for out, backend in (("o", "nonsense"), ("i", "module://matplotlib_inline.backend_inline")):
        done = command(*TRAIN[:-1], out, MPLBACKEND=backend)
        assert (done.returncode, done.stderr) == (0, b"")
    for name in ("confusion.svg", "confusion.png"):
        assert (tmp_path / "o" / name).read_bytes() == (tmp_path / "i" / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", ["0", "20"])
def test_narrow_terminal_cuts_no_number(tmp_path, columns):
    import pty

    leader, follower = pty.openpty()
    code = "from fastloss.cli.common import console; from fastloss.tables import Table;"
    code += "console().print(Table('', ('time',) * 9, [('12345.678 ms',) * 9]).rich())"
    environment = {**os.environ, "COLUMNS": columns, "TERM": "dumb"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=follower)
    assert process.wait(timeout=60) == 0
    os.close(follower)
    shown = b""
    with suppress(OSError):  # a pseudo-terminal raises it at the end of the output
        while more := os.read(leader, 10_000):
            shown += more
    os.close(leader)
    shown = shown.decode()
    # Rich folds numbers at any place, so count their digits.
    assert {shown.count(digit) for digit in "12345678"} == {9}
    assert "…" not in shown
