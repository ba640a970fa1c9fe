"""Write the lessons as notebooks for a course, with links that open them in a browser.

For the computers of a room, and inside Binder::

    python bench/classroom.py

For Colab and Binder, at a release. Commit the folder before you tag the release::

    python bench/classroom.py --repository https://github.com/OWNER/NAME --tag v0.2.0

For JupyterLite::

    python bench/classroom.py --lite

Existing notebooks that differ, such as those with a student's answers, are kept: the command then
writes nothing. ``--overwrite`` replaces them.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from urllib.parse import quote

from fastloss import files
from fastloss.lessons import all_lessons

_REPOSITORY = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
_TAG = re.compile(r"v\d+\.\d+[\w.+-]*")

_FOLDER, _LITE_FOLDER = "classroom", "classroom-lite"
_LITE = "%pip install -q fastloss matplotlib\n"
_COLAB = """\
import importlib.util

if importlib.util.find_spec("fastloss") is None:  # as in a new runtime of Colab
    %pip install -q "fastloss[bench] @ git+https://github.com/{repository}@{tag}" line_profiler
"""


def main(arguments: list[str] | None = None) -> None:
    """Write six notebooks to a folder, and with a repository their links to its README.md."""
    default = f"folder to write (default: {_FOLDER}, or {_LITE_FOLDER} with --lite)"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help=default)
    parser.add_argument("--repository", help="GitHub address of fastloss: https://github.com/O/N")
    parser.add_argument("--tag", help="tag of the release to install, such as v0.2.0")
    parser.add_argument("--lite", action="store_true", help="install in JupyterLite, no Numba")
    parser.add_argument("--overwrite", action="store_true", help="replace edited notebooks")
    given = parser.parse_args(arguments)
    out = given.out or Path(_LITE_FOLDER if given.lite else _FOLDER)
    if (given.repository is None) != (given.tag is None):
        parser.error("--repository and --tag belong together")
    if given.lite and given.tag is not None:
        parser.error("--lite needs no --repository: it installs a wheel beside the notebooks")
    try:
        contents = notebooks(out, given.repository, given.tag, lite=given.lite)
        files.write_all(contents, overwrite=given.overwrite)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"Saved the notebooks in {out}")


def notebooks(
    out: Path, repository: str | None, tag: str | None, *, lite: bool = False
) -> dict[Path, str]:
    """Return the notebooks by their path in ``out``, and links if there is a repository.

    Raises
    ------
    ValueError : an address that is not GitHub's (Colab opens no other), or a tag that is no
        version: a branch changes while a course runs.
    """
    first_cell = _LITE if lite else ""
    contents = {}
    if repository is not None and tag is not None:
        name = _name_of(repository)
        if _TAG.fullmatch(tag) is None:
            raise ValueError(f"the tag must be a release's, such as v0.2.0, got {tag!r}")
        first_cell = _COLAB.format(repository=name, tag=tag)
        contents[out / "README.md"] = links(name, tag, out.name)
    for lesson in all_lessons():
        contents[out / f"{lesson.path.stem}.ipynb"] = lesson.notebook(first_cell)
    return contents


def links(repository: str, tag: str, folder: str) -> str:
    """Return a page with a Colab and a Binder badge for each notebook."""
    lines = [
        f"# The lessons of fastloss {tag}",
        "",
        "The links open this release, whatever changes later.",
        "",
        "| lesson | | |",
        "| --- | --- | --- |",
    ]
    for lesson in all_lessons():
        path = quote(f"{folder}/{lesson.path.stem}.ipynb")
        colab = f"https://colab.research.google.com/github/{repository}/blob/{tag}/{path}"
        place = quote(f"lab/tree/{path}", safe="")
        binder = f"https://mybinder.org/v2/gh/{repository}/{tag}?urlpath={place}"
        lines.append(
            f"| {lesson.number}. {lesson.title} "
            f"| [![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
            f"| [![Binder](https://mybinder.org/badge_logo.svg)]({binder}) |"
        )
    return "\n".join([*lines, ""])


def _name_of(repository: str) -> str:
    """Return OWNER/NAME of a GitHub address."""
    found = _REPOSITORY.fullmatch(repository)
    if found is None:
        raise ValueError(
            f"the repository must be https://github.com/OWNER/NAME, got {repository!r}"
        )
    return found[1]


if __name__ == "__main__":
    main()
