"""Tests of the notebooks of a course, their links, and the environment of Binder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import classroom
import pytest

import fastloss
from fastloss.lessons import all_lessons, exercises

ROOT = Path(fastloss.__file__).parents[1]
ADDRESS, TAG = "https://github.com/OWNER/NAME.git", "v0.2.0"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Return a folder with the course of a release."""
    pytest.importorskip("jupytext")
    out = tmp_path_factory.mktemp("course") / "classroom"
    classroom.main(["--out", str(out), "--repository", ADDRESS, "--tag", TAG])
    return out


def first_cell(path: Path) -> str:
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def test_notebooks_install_the_release_first(course):
    notebooks = sorted(course.glob("*.ipynb"))
    assert [path.stem for path in notebooks] == [lesson.path.stem for lesson in all_lessons()]
    for path in notebooks:
        assert '"fastloss[bench] @ git+https://github.com/OWNER/NAME@v0.2.0"' in first_cell(path)


def test_links_open_the_tag(course):
    page = (course / "README.md").read_text(encoding="utf-8")
    for lesson in all_lessons():
        name = f"{lesson.path.stem}.ipynb"
        assert f"/github/OWNER/NAME/blob/v0.2.0/classroom/{name})" in page
        assert f"/v2/gh/OWNER/NAME/v0.2.0?urlpath=lab%2Ftree%2Fclassroom%2F{name})" in page
    assert "main" not in page
    assert "master" not in page


def test_lite_has_a_folder_of_its_own_and_installs_from_the_site(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    monkeypatch.chdir(tmp_path)
    classroom.main(["--lite"])
    assert [path.name for path in tmp_path.iterdir()] == ["classroom-lite"]
    assert first_cell(tmp_path / "classroom-lite" / "6_gradient_checks.ipynb") == (
        "%pip install -q fastloss matplotlib"
    )
    assert not (tmp_path / "classroom-lite" / "README.md").exists()


@pytest.mark.parametrize("name", ["6_gradient_checks.ipynb", "README.md"])
def test_edited_files_are_kept_unless_told_otherwise(name, course, capsys):
    arguments = ["--out", str(course), "--repository", ADDRESS, "--tag", TAG]
    classroom.main(arguments)  # nothing was edited
    before = {path: path.read_bytes() for path in course.iterdir()}
    (course / name).write_text("answers")
    (course / "1_the_naive_loop.ipynb").unlink()
    with pytest.raises(SystemExit):
        classroom.main(arguments)
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert (course / name).read_text() == "answers"
    assert not (course / "1_the_naive_loop.ipynb").exists()
    classroom.main([*arguments, "--overwrite"])
    assert {path: path.read_bytes() for path in course.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repository", ADDRESS], "--repository and --tag belong together"),
        (["--repository", ADDRESS, "--tag", "main"], "the tag must be a release's, such as v0.2.0"),
        (
            ["--repository", "https://gitlab.com/o/n", "--tag", TAG],
            "the repository must be https://github.com/OWNER/NAME, got 'https://gitlab.com/o/n'",
        ),
        (["--lite", "--repository", ADDRESS, "--tag", TAG], "--lite needs no --repository"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        classroom.main(["--out", str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_binder_pins_every_package_of_the_lessons():
    pinned = re.findall(r"^([\w-]+)==[\d.]+$", (ROOT / "binder/requirements.txt").read_text(), re.M)
    text = (ROOT / "pyproject.toml").read_text()
    needed: set[str] = set()
    for table in ("dependencies", "bench", "lessons"):
        (listed,) = re.findall(rf"^{table} = \[(.+?)\]$", text, re.MULTILINE | re.DOTALL)
        needed |= set(re.findall(r'"([\w-]+)>=', listed))
    assert set(pinned) == needed
    assert os.access(ROOT / "binder/postBuild", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / "binder/postBuild")], check=True)


def test_page_for_teachers_shows_what_happens(capsys):
    page = (ROOT / "docs/teaching.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "right\n"
    names = re.findall(r"^(\w+): (?:not|wrong|slow|large|right)", page, re.MULTILINE)
    assert len(names) == 4
    assert set(names) <= set(exercises.names())
