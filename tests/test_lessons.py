"""Tests that the lessons run, read well and open as notebooks."""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import fastloss
from fastloss import lessons
from fastloss.benchmark.measure import Ratio
from fastloss.cli import app
from fastloss.cli import lesson as cli_lesson
from fastloss.lessons import tools

ROOT = Path(fastloss.__file__).parents[1]
LESSONS = lessons.all_lessons()
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
# Lessons 2 to 5 measure for ten seconds each; make deep runs them.
each_lesson_to_run = pytest.mark.parametrize(
    "lesson",
    [
        pytest.param(lesson, marks=pytest.mark.deep if lesson.number in (2, 3, 4, 5) else ())
        for lesson in LESSONS
    ],
    ids=lambda lesson: lesson.path.stem,
)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- the lessons ----------------------------------------------------------------------------------


def test_the_course_is_complete():
    assert [lesson.number for lesson in LESSONS] == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def run_script(tmp_path):
    """Return a function that runs a script in an empty folder, with warnings as errors."""

    def run_it(path: Path) -> tuple[str, Path]:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "10000"},  # a claim a line
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, tmp_path

    return run_it


def not_shown(output: str) -> dict[int, str]:
    """Return the claims that a run did not show, by their place among all claims.

    Their sentences differ between runs: some list names that were measured.
    """
    beginnings = tools.SHOWN, tools.NOT_SHOWN
    claims = [line for line in output.splitlines() if line.startswith(beginnings)]
    return {k: line for k, line in enumerate(claims) if line.startswith(tools.NOT_SHOWN)}


def test_claim_is_the_same_one_if_its_sentence_differs():
    runs = [f"{tools.SHOWN} one.\n{tools.NOT_SHOWN} slow: {names}.\n" for names in ("a", "a, b")]
    assert [list(not_shown(run)) for run in runs] == [[1], [1]]


@each_lesson_to_run
def test_lesson_runs_as_a_script_shows_its_claims_and_saves_a_figure(lesson, run_script):
    """A busy machine may hide a claim, but not the same one in three runs."""
    if lesson.number == 1:
        pytest.importorskip("line_profiler")
    pytest.importorskip("matplotlib")
    output, folder = run_script(lesson.path)
    missing = not_shown(output)
    for _ in range(2):
        if missing:
            again = not_shown(run_script(lesson.path)[0])
            missing = {place: missing[place] for place in missing if place in again}
    assert not missing
    assert tools.SHOWN in output
    figures = sorted(path.name for path in (folder / tools.DEFAULT_FOLDER).iterdir())
    stems = {Path(name).stem.removesuffix("-dark") for name in figures}
    assert all(stem.startswith(f"{lesson.number}-") for stem in stems)
    for stem in stems:
        for ending in (".png", ".svg", "-dark.png", "-dark.svg"):
            assert f"{stem}{ending}" in figures
        assert f"The figure is in {tools.DEFAULT_FOLDER / stem}.png" in output


@each_lesson
def test_lesson_has_a_summary_exercises_questions_and_claims(lesson):
    assert lesson.title
    assert 60 < len(lesson.summary) < 500
    assert 2 <= len(lesson.exercises) <= 3
    text = "\n".join(cell.source for cell in lesson.cells if cell.kind == "markdown")
    assert text.count("**Predict") >= 3
    calls = [name for cell in lesson.cells for name in names_called(cell)]
    assert calls.count("claim") >= 4
    assert "keep_picture" in calls


def names_called(cell: lessons.Cell) -> list[str]:
    """Return the names of the functions that a cell of code calls."""
    nodes = ast.walk(ast.parse(cell.source)) if cell.kind == "code" else ()
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    return [function.id for function in functions if isinstance(function, ast.Name)]


@each_lesson
def test_lesson_has_no_assert_and_hides_the_sentences_that_answer_its_questions(lesson):
    tree = ast.parse(lesson.path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert "np.testing" not in lesson.path.read_text()
    for cell, following in zip(lesson.cells, lesson.cells[1:], strict=False):
        if cell.asks:  # what follows the question in its cell must not answer it
            assert cell.source.split("\n\n")[-1].startswith("**Predict")
            assert following.kind == "code"
        assert cell.hidden == bool({"claim", "keep_picture"} & set(names_called(cell)))


@each_lesson
def test_shown_code_uses_no_name_from_a_hidden_cell(lesson):
    """Readers of a terminal never see hidden cells, so they could not say what the name is."""
    hidden: set[str] = set()
    for cell in lesson.cells:
        if cell.kind == "code":
            names = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name)]
            stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
            if cell.hidden:
                hidden |= stored
            else:
                hidden -= stored
                assert not hidden & {name.id for name in names}, f"line {cell.line}"


@each_lesson
def test_text_renders_as_it_is_meant(lesson):
    """In Markdown, a line that wraps before "+", "-", "1." or "#" starts a list or a heading."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt().enable("table")
    for cell in lesson.cells:
        if cell.kind != "markdown":
            continue
        lines = cell.source.splitlines()
        for token in markdown.parse(cell.source):
            starts_block = token.nesting >= 0 and token.map is not None
            if starts_block and token.type not in ("inline", "paragraph_open", "list_item_open"):
                first = token.map[0]
                place = f"line {cell.line + first}: {lines[first]}"
                assert first == 0 or lines[first - 1] == "", place
                assert token.type != "code_block", place
                assert token.markup not in ("=", "-") or token.type != "heading_open", place
            for child in token.children or ():
                broken = child.type == "text" and ("`" in child.content or "**" in child.content)
                assert not broken, f"line {cell.line}: {child.content}"


@each_lesson
def test_notebook_holds_the_cells_of_the_lesson(lesson, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    target = tmp_path / "new folder" / "lesson.ipynb"
    lesson.save_notebook(target)
    assert [path.name for path in target.parent.iterdir()] == ["lesson.ipynb"]
    notebook = jupytext.read(target)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    expected = [(cell.kind, cell.source.strip()) for cell in lesson.cells]
    assert [(cell.cell_type, cell.source.strip()) for cell in notebook.cells] == expected
    assert {kind for kind, _ in expected} == {"markdown", "code"}
    again = jupytext.reads(jupytext.writes(notebook, fmt="py:percent"), fmt="py:percent")
    assert [(cell.cell_type, cell.source.strip()) for cell in again.cells] == expected


# --- finding, reading and playing them ------------------------------------------------------------

SCRIPT = """\
# %% [markdown]
# # Lesson 3: A small one
#
# It shows
# little.

# %%
from fastloss.lessons.tools import keep_picture

print("playing", __name__)

# %% [markdown]
# **Predict.** What comes out?

# %%
{code}

# %% jupyter={{"source_hidden": true}}
print("from a hidden", "cell")

# %% [markdown]
# ## Exercises
#

# %% [markdown]
# ### Exercise 1: Think
#
# About what?

# %% [markdown]
# ### Exercise 2: Think again: harder
"""


@pytest.fixture
def small_lesson(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Return a function that writes a course of one lesson that contains the given code."""

    def make(code: str) -> Path:
        (tmp_path / "course").mkdir(exist_ok=True)
        path = tmp_path / "course" / "3_small.py"
        path.write_text(SCRIPT.format(code=code))
        monkeypatch.setattr(lessons, "folder", lambda: path.parent)
        return path

    return make


def test_lesson_is_read_from_its_script(small_lesson):
    small_lesson("x = 1")
    (lesson,) = lessons.all_lessons()
    assert (lesson.number, lesson.title) == (3, "A small one")
    assert lesson.summary == "It shows little."
    assert lesson.exercises == ("Think", "Think again: harder")
    kinds = " ".join(cell.kind for cell in lesson.cells)
    assert kinds == "markdown code markdown code code markdown markdown markdown"
    assert [cell.asks for cell in lesson.cells] == [k == 2 for k in range(8)]
    assert [cell.hidden for cell in lesson.cells] == [k == 4 for k in range(8)]
    lines = lesson.path.read_text().splitlines()
    for cell in lesson.cells:
        assert cell.source.splitlines()[0] in lines[cell.line - 1]


def test_play_keeps_the_line_numbers_of_the_script(small_lesson):
    path = small_lesson("raise KeyError('here')")
    (lesson,) = lessons.all_lessons()
    with pytest.raises(KeyError, match="here") as caught:
        lesson.play()
    last = caught.traceback[-1]
    assert last.path == path
    assert path.read_text().splitlines()[last.lineno] == "raise KeyError('here')"


def test_first_line_without_a_title_is_an_error(small_lesson):
    path = small_lesson("x = 1")
    path.write_text(path.read_text().replace("# # Lesson 3: A small one", "# # Three"))
    (lesson,) = lessons.all_lessons()
    with pytest.raises(ValueError, match=r"3_small.py: the first line must be"):
        _ = lesson.title


def test_lessons_are_found_in_an_installed_wheel(tmp_path, run_python):
    """The layout is the wheel's: scripts inside the package, and no ``bench`` beside it."""
    shutil.copytree(
        ROOT / "fastloss", tmp_path / "fastloss", ignore=shutil.ignore_patterns("__pycache__")
    )
    source, target = re.findall(
        r'^"(bench/lessons)" = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )[0]
    shutil.copytree(ROOT / source, tmp_path / target)
    output = run_python(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from fastloss import lessons
        print(lessons.folder())
        print(*[lesson.title for lesson in lessons.all_lessons()], sep="\\n")
        from fastloss.lessons import exercises, solutions
        print(exercises.examine(solutions.line_hits), solutions.__file__)
        """
    )
    *found, verdict = output.splitlines()
    assert found == [str(tmp_path / target), *(lesson.title for lesson in LESSONS)]
    assert verdict == f"right {tmp_path / 'fastloss' / 'lessons' / 'solutions.py'}"


def test_missing_lessons_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"no lessons in .*bench.lessons or .*scripts"):
        lessons.folder()


# --- the command ----------------------------------------------------------------------------------


def test_command_lists_the_lessons():
    result = run("lesson")
    assert result.exit_code == 0, result.output
    listed = set(re.findall(r"[\w-]+", result.stdout))
    for lesson in LESSONS:
        parts = (lesson.number, lesson.title, lesson.summary, *lesson.exercises)
        words = re.findall(r"[\w-]+", " ".join(map(str, parts)))
        assert set(words) <= listed


def test_command_runs_a_lesson_and_prints_the_path_of_its_figure(small_lesson, tmp_path):
    pytest.importorskip("matplotlib")
    path = small_lesson("keep_picture(lambda figure: figure.subplots().plot([1, 2]), '3-small')")
    result = run("lesson", "3", "--out", tmp_path / "figures")
    assert result.exit_code == 0, result.output
    for text in ("A small one", "It shows little.", "playing __main__", "Think again"):
        assert text in result.stdout
    assert f"The script: {path}" in result.stdout
    assert result.stdout.rstrip().endswith(f"The figure: {tmp_path / 'figures' / '3-small.png'}")
    assert (tmp_path / "figures" / "3-small-dark.svg").exists()


def test_hidden_cell_runs_without_being_shown(small_lesson, tmp_path):
    small_lesson("print('visible')")
    output = run("lesson", "3", "--out", tmp_path).stdout
    assert "from a hidden cell" in output
    assert "print('visible')" in output
    assert 'print("from a hidden"' not in output


@pytest.mark.parametrize(
    ("options", "at_terminal", "prompts"),
    [
        ([], True, ["Your guess?"]),
        (["--step"], True, ["Enter runs it.", "Your guess?", "Enter runs it."]),
        (["--no-wait"], True, []),
        (["--no-wait", "--step"], True, []),
        ([], False, []),
        (["--step"], False, []),
    ],
)
@pytest.mark.parametrize("ending", ["\n", ""], ids=["enter", "end of file"])
def test_waiting(options, at_terminal, prompts, ending, small_lesson, tmp_path, monkeypatch):
    """A terminal waits at the question, before its answer; the end of the input counts as Enter."""
    small_lesson("print('answer')")
    monkeypatch.setattr("fastloss.cli.lesson._has_reader", lambda: at_terminal)
    arguments = ["lesson", "3", "--out", str(tmp_path), *options]
    result = CliRunner().invoke(app, arguments, input=ending * 3)
    assert result.exit_code == 0, result.output
    assert re.findall(r"Your guess\?|Enter runs it\.", result.stdout) == prompts
    if "Your guess?" in prompts:
        question, answer = result.stdout.split("Your guess?")
        assert "What comes out?" in question
        assert "answer" not in question
        assert "print('answer')" in answer


def test_interrupt_at_a_question_ends_the_lesson(small_lesson, tmp_path, monkeypatch):
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    small_lesson("print('answer')")
    monkeypatch.setattr("fastloss.cli.lesson._has_reader", lambda: True)
    monkeypatch.setattr("builtins.input", interrupt)
    result = run("lesson", "3", "--out", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "fastloss: interrupted\n"
    assert "answer" not in result.stdout


@pytest.mark.parametrize("terminals", [(True, True), (True, False), (False, True)])
def test_only_a_terminal_at_both_ends_waits(terminals, monkeypatch):
    for name, is_terminal in zip(("stdin", "stdout"), terminals, strict=True):
        stream = SimpleNamespace(isatty=lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(f"fastloss.cli.lesson.sys.{name}", stream)
    assert cli_lesson._has_reader() == all(terminals)


def test_all_runs_every_lesson_and_names_those_that_fail(monkeypatch, tmp_path):
    commands = []

    def pretend(command, *, check):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, int(command[4] == "2"))

    monkeypatch.setattr(subprocess, "run", pretend)
    result = run("lesson", "all", "--out", tmp_path)
    assert commands == [
        ["-m", "fastloss", "lesson", str(lesson.number), "--out", str(tmp_path), "--no-wait"]
        for lesson in LESSONS
    ]
    assert result.exit_code == 1
    assert result.stderr == "fastloss: failed: lesson 2\n"


def test_command_writes_a_notebook(tmp_path):
    pytest.importorskip("jupytext")
    result = run("lesson", "6", "--notebook", tmp_path / "six.ipynb")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Saved {tmp_path / 'six.ipynb'}\n"
    assert (tmp_path / "six.ipynb").stat().st_size > 5000


def test_command_keeps_an_edited_notebook(tmp_path):
    pytest.importorskip("jupytext")
    target = tmp_path / "six.ipynb"
    for _ in range(2):  # a notebook as it was written is no answer
        assert run("lesson", "6", "--notebook", target).exit_code == 0
    target.write_text(target.read_text().replace("raise NotImplementedError", "return 42"))
    edited = target.read_bytes()
    result = run("lesson", "6", "--notebook", target)
    assert result.exit_code == 2
    assert "the file was edited" in result.stderr
    assert target.read_bytes() == edited
    assert run("lesson", "6", "--notebook", target, "--overwrite").exit_code == 0
    assert b"return 42" not in target.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], "unknown lesson '7'; known: 1, 2, 3, 4, 5, 6"),
        (["one"], "unknown lesson 'one'; known: 1, 2, 3, 4, 5, 6"),
        (["1", "--notebook", "one.py"], "a notebook's name must end in .ipynb, got 'one.py'"),
        (["--notebook", "one.ipynb"], "--notebook needs the number of one lesson"),
        (["all", "--notebook", "one.ipynb"], "--notebook needs the number of one lesson"),
        (
            ["1", "--out", __file__],
            f"[Errno 17] cannot write: File exists: '{__file__}/figure.png'",
        ),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(arguments, message):
    result = run("lesson", *arguments)
    assert result.exit_code == 2
    assert result.stderr == f"fastloss: {message}\n"


def test_missing_package_of_a_lesson_is_reported_in_one_line(small_lesson, tmp_path):
    small_lesson("import no_such_profiler")
    result = run("lesson", "3", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == (
        "fastloss: lesson 3 needs no_such_profiler; install it with "
        "pip install '.[lessons]' in a checkout of fastloss\n"
    )


def test_missing_jupytext_is_reported_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    result = run("lesson", "1", "--notebook", tmp_path / "one.ipynb")
    assert result.exit_code == 2
    assert "needs jupytext; install it with pip install '.[lessons]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


CLAIMS = """\
from fastloss.lessons.tools import agree, claim

claim(2 > 1, "two is more.", "two is less.")
claim({holds}, "one is more.", "one is less; this machine counts backwards.")
agree("mine", (1.0, [2.0]), ({loss}, [2.0]), 1e-9)
"""


def test_claim_that_the_machine_does_not_show_is_a_sentence(small_lesson, tmp_path):
    small_lesson(CLAIMS.format(holds="1 > 2", loss="1.0"))
    result = run("lesson", "3", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Shown: two is more.\n" in result.stdout
    assert "Not shown here: one is less; this machine counts backwards.\n" in result.stdout
    assert "from a hidden cell" in result.stdout
    assert "This machine showed 1 of the 2 claims" in result.stdout


def test_command_says_that_all_claims_were_shown(small_lesson, tmp_path):
    small_lesson(CLAIMS.format(holds="2 > 1", loss="1.0"))
    result = run("lesson", "3", "--out", tmp_path)
    assert "This machine showed all 2 claims of the lesson." in result.stdout
    assert tools.NOT_SHOWN not in result.stdout


def test_wrong_result_stops_the_lesson_in_one_line(small_lesson, tmp_path):
    small_lesson(CLAIMS.format(holds="2 > 1", loss="3.0"))
    result = run("lesson", "3", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        "fastloss: lesson 3 stopped: the loss of mine is 1, expected 3; "
        "1 of 1 entries differ by more than 1e-09 of the largest\n"
    )
    assert "from a hidden cell" not in result.stdout


def test_other_error_shows_its_traceback(small_lesson, tmp_path):
    """One line would not say where."""
    small_lesson("raise KeyError('here')")
    result = run("lesson", "3", "--out", tmp_path)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "KeyError: 'here'" in result.stderr


# --- tools of the lessons -------------------------------------------------------------------------


def test_claims_are_kept_and_printed_in_lines_of_the_terminals_width(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    with tools.keeping_claims() as claims:
        tools.claim(True, "said " * 20, "otherwise")
        tools.claim(False, "said", "otherwise")
    tools.claim(True, "not kept", "otherwise")
    assert [(claim.holds, claim.sentence) for claim in claims] == [
        (True, "said " * 20),
        (False, "otherwise"),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["Not shown here: otherwise", "Shown: not kept"]
    assert len(lines) > 3
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((1.0, [[3.0, 2.0], [1.0, 3.9]]), r"gradient\[1, 1\] of mine is 3.9, expected 4; 1 of 4"),
        ((1.0, [[3.0, np.nan], [1.0, 4.0]]), r"gradient\[0, 1\] of mine is nan, expected 2"),
        ((np.nan, [[3.0, 2.0], [1.0, 4.0]]), r"the loss of mine is nan, expected 1"),
        ((1.0, [3.0, 2.0]), r"gradient of mine has the shape \(2,\), expected \(2, 2\)"),
    ],
)
def test_agree_names_the_wrong_part_and_entry(found, message):
    expected = (1.0, [[3.0, 2.0], [1.0, 4.0]])
    tools.agree("mine", (1.0 + 1e-7, [[3.0, 2.0], [1.0, 4.0 + 3e-6]]), expected, 1e-6)
    with pytest.raises(tools.WrongResult, match=message):
        tools.agree("mine", found, expected, 1e-6)
    with pytest.raises(tools.WrongResult, match=r"the loss of mine is 1, .* than 1e-08"):
        tools.agree("mine", (1.0 + 1e-7, expected[1]), expected, 1e-6, loss_tolerance=1e-8)


def test_times_as_fast_names_the_interval_only_if_there_is_one():
    assert tools.times_as_fast(Ratio(2.0, 0.0, math.inf, 3)) == "2.00 times as fast"
    assert tools.times_as_fast(Ratio(1234.5, 12.34, 5000.0, 9)) == (
        "1,234 times as fast (12 to 5,000)"
    )


def test_take_turns_measures_every_contender_in_every_round():
    counts = {"one": 0, "other": 0}

    def count(name: str) -> Callable[[], None]:
        def call() -> None:
            counts[name] += 1

        return call

    times = tools.take_turns({name: count(name) for name in counts}, seconds=5.0, max_rounds=2)
    assert {name: len(spent) for name, spent in times.items()} == {"one": 2, "other": 2}
    assert min(counts.values()) > 100


def test_peak_bytes_sees_temporaries_and_the_result():
    a = np.ones(100_000)
    assert tools.peak_bytes(lambda: a.sum()) < 0.1 * a.nbytes
    np.testing.assert_allclose(tools.peak_bytes(lambda: a + 1), a.nbytes, rtol=0.01)
    # np.add, not ``a + 1``: NumPy may reuse the memory of an operator's temporary.
    np.testing.assert_allclose(
        tools.peak_bytes(lambda: np.exp(np.add(a, 1))), 2 * a.nbytes, rtol=0.01
    )


def test_picture_shows_itself_in_a_notebook(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    with tools.saving_to(tmp_path / "here") as paths:
        picture = tools.keep_picture(lambda figure: figure.subplots().plot([1, 2]), "a", 3.0, 2.0)
    assert paths == [picture.path] == [tmp_path / "here" / "a.png"]
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert str(picture.path) in capsys.readouterr().out
