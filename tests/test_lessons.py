"""Tests that the lessons run, open as notebooks, and have correct solutions."""

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
from typing import Any

import numpy as np
import pytest
from lessons import solutions
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
# Lessons 2 to 5 measure for ten seconds each; .ci/run runs them too.
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


def not_shown(output: str) -> set[str]:
    """Return the claims that a run did not show, without their numbers."""
    lines = [line for line in output.splitlines() if line.startswith(tools.NOT_SHOWN)]
    return {re.sub(r"\d[\d.,e+-]*", "#", line) for line in lines}


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
            missing &= not_shown(run_script(lesson.path)[0])
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
# 1. **Think.** About what? (`solutions.thought`)
# 2. **Think again.** Hard:
#    harder. (`solutions.second_thought`)
"""


@pytest.fixture
def small_lesson(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Return a function that writes a course of one lesson that contains the given code."""

    def make(code: str) -> Path:
        (tmp_path / "course").mkdir(exist_ok=True)
        path = tmp_path / "course" / "3_small.py"
        path.write_text(SCRIPT.format(code=code))
        (tmp_path / "course" / "solutions.py").write_text("")
        monkeypatch.setattr(lessons, "folder", lambda: path.parent)
        return path

    return make


def test_lesson_is_read_from_its_script(small_lesson):
    small_lesson("x = 1")
    (lesson,) = lessons.all_lessons()
    assert (lesson.number, lesson.title) == (3, "A small one")
    assert lesson.summary == "It shows little."
    assert lesson.exercises == (
        "**Think.** About what? (`solutions.thought`)",
        "**Think again.** Hard: harder. (`solutions.second_thought`)",
    )
    assert [cell.kind for cell in lesson.cells] == [
        "markdown",
        "code",
        "markdown",
        "code",
        "code",
        "markdown",
    ]
    assert [cell.asks for cell in lesson.cells] == [k == 2 for k in range(6)]
    assert [cell.hidden for cell in lesson.cells] == [k == 4 for k in range(6)]
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
        """
    )
    assert output.splitlines() == [str(tmp_path / target), *(lesson.title for lesson in LESSONS)]


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
        names = " ".join(re.findall(r"^\*\*(.+?)\*\*", e)[0] for e in lesson.exercises)
        words = re.findall(r"[\w-]+", f"{lesson.number} {lesson.title} {lesson.summary} {names}")
        assert set(words) <= listed


def test_command_runs_a_lesson_and_prints_the_path_of_its_figure(small_lesson, tmp_path):
    pytest.importorskip("matplotlib")
    path = small_lesson("keep_picture(lambda figure: figure.subplots().plot([1, 2]), '3-small')")
    result = run("lesson", "3", "--out", tmp_path / "figures")
    assert result.exit_code == 0, result.output
    for text in ("A small one", "It shows little.", "playing __main__", "Think again."):
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


# --- the solutions --------------------------------------------------------------------------------

N, D, C = 60, 12, 5
Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def problem(dtype: Any = np.float64) -> Problem:
    data = fastloss.data.synthetic(N, D, C, dtype=dtype, seed=3)
    W = np.random.default_rng(1).standard_normal((D, C)).astype(dtype)
    return W, data.X, data.y


def assert_is(loss: str, function: Callable[..., Any], dtype: Any = np.float64) -> None:
    """Assert that the function computes a loss of fastloss and its gradient."""
    W, X, y = problem(dtype)
    expected, expected_dW = fastloss.loss_and_grad(W, X, y, loss=loss, backend="naive")
    value, dW = function(W, X, y)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(value, expected, rtol=rtol)
    np.testing.assert_allclose(dW, expected_dW, atol=rtol * np.abs(expected_dW).max())


def names_of(number: int, *functions: str) -> dict[str, Any]:
    """Return a lesson's namespace after only its imports and the cells of these functions."""
    cells = [cell.source for cell in lessons.find_lesson(number).cells if cell.kind == "code"]
    namespace: dict[str, Any] = {"__name__": "lesson"}
    exec(cells[0], namespace)
    for source in cells:
        if any(source.lstrip().startswith(f"def {name}(") for name in functions):
            exec(source, namespace)
    return namespace


def check_line_hits():
    line_profiler = pytest.importorskip("line_profiler")
    namespace = names_of(1, "naive")
    cell = next(c for c in lessons.find_lesson(1).cells if "def naive(" in c.source)
    for shape in ((3, 4, 5), (7, 2, 3)):
        data = fastloss.data.synthetic(*shape, dtype=np.float64)
        profiler = line_profiler.LineProfiler(namespace["naive"])
        profiler.runcall(namespace["naive"], np.zeros(shape[1:]), data.X, data.y)
        ((_, timings),) = profiler.get_stats().timings.items()
        hits = {cell.source.splitlines()[line - 1].strip(): count for line, count, _ in timings}
        multiply_adds, _ = solutions.line_hits(*shape)
        assert hits["scores[c] += X[i, d] * W[d, c]"] == multiply_adds
    assert solutions.line_hits(3, 4, 5) == (60, 15)


def check_naive_on_lists():
    assert_is("softmax", solutions.naive_on_lists)
    pytest.importorskip("line_profiler")
    naive = names_of(1, "naive")["naive"]
    W, X, y = problem()
    times = tools.take_turns(
        {
            "arrays": lambda: naive(W, X, y),
            "lists": lambda: solutions.naive_on_lists(W, X, y),
        },
        max_rounds=3,
    )
    assert Ratio.of(times["arrays"], times["lists"]).value > 1.2


def check_share_from_speedup():
    for share in (0.1, 0.5, 0.9):
        whole = 1 / (1 - share + share / 20)
        np.testing.assert_allclose(solutions.share_from_speedup(whole, 20), share)


def check_hinge_in_place():
    assert_is("hinge", solutions.hinge_in_place)
    assert_is("hinge", solutions.hinge_in_place, np.float32)
    data = fastloss.data.synthetic(5000, 20, 30)
    W = np.zeros((20, 30), np.float32)
    peak = tools.peak_bytes(lambda: solutions.hinge_in_place(W, data.X, data.y))
    assert peak < 2 * 5000 * 30 * 4


def check_softmax_of_bytes():
    pixels = fastloss.data.synthetic(2000, 100, C, dtype=np.uint8)
    W = np.random.default_rng(1).standard_normal((100, C)).astype(np.float32)
    X = pixels.X / np.float32(255)
    expected, expected_dW = fastloss.loss_and_grad(W, X, pixels.y, backend="numpy")
    loss, dW = solutions.softmax_of_bytes(W, pixels.X, pixels.y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(dW, expected_dW, atol=1e-5 * np.abs(expected_dW).max())

    def peak(n_rows: int) -> int:
        X, y = pixels.X[:n_rows], pixels.y[:n_rows]
        return tools.peak_bytes(lambda: solutions.softmax_of_bytes(W, X, y))

    assert peak(2000) < pixels.X.nbytes
    np.testing.assert_allclose(peak(1000), peak(2000), rtol=0.1)


def check_peak_of_one_expression():
    scores = np.random.default_rng(0).standard_normal((2000, 50))
    np.testing.assert_allclose(solutions.peak_of_one_expression(scores), 3, rtol=0.02)


def check_hinge_compiled():
    assert_is("hinge", solutions.hinge_compiled)


def check_count_signatures():
    assert solutions.count_signatures() == 5


def check_seconds_a_day():
    assert solutions.seconds_a_day(2.0, 0.0) == 48
    assert solutions.seconds_a_day(0.1, 0.1, starts=1) == pytest.approx(470)
    python, compiled = solutions.seconds_a_day(0.1, 0.1), solutions.seconds_a_day(1.5, 2e-4)
    assert solutions.seconds_a_day(0.05, 2e-4) < compiled < python


def check_ridge_classes():
    arithmetic, bandwidth = 300e9, 24e9
    for itemsize in (1, 4, 8):
        classes = solutions.ridge_classes(arithmetic, bandwidth, itemsize)
        # At the ridge, reading and computing take the same time.
        np.testing.assert_allclose(itemsize / bandwidth, 4 * classes / arithmetic)


def check_one_pass_numpy():
    assert_is("softmax", solutions.one_pass_numpy)
    assert_is("softmax", lambda *a: solutions.one_pass_numpy(*a, block_bytes=500), np.float32)


def check_shortest_time():
    ceilings = {"bandwidth": 20e9, "arithmetic": 200e9}
    few, many = (
        solutions.shortest_time((1000, 500, classes), 4, 1, **ceilings) for classes in (2, 200)
    )
    assert few == 1000 * 500 * 4 / 20e9
    assert many == 4 * 1000 * 500 * 200 / 200e9
    assert solutions.shortest_time((1000, 500, 2), 4, 2, **ceilings) == 2 * few


def check_complex_step_gradient():
    W, X, y = problem()
    np.testing.assert_allclose(
        solutions.softmax_of_complex(W, X, y).real, fastloss.loss_and_grad(W, X, y)[0], rtol=1e-13
    )
    gradient = solutions.complex_step_gradient(lambda W: solutions.softmax_of_complex(W, X, y), W)
    expected = fastloss.loss_and_grad(W, X, y, backend="naive")[1]
    np.testing.assert_allclose(gradient, expected, atol=1e-14)


def check_fourth_order_gradient():
    objective = fastloss.Objective(*problem()[1:], backend="numpy")
    W = problem()[0]
    expected = objective(W)[1]

    def error(h: float) -> float:
        gradient = solutions.fourth_order_gradient(objective.loss, W, h)
        return float(np.abs(gradient - expected).max())

    assert 3.5 < math.log10(error(1e-1) / error(1e-2)) < 4.5
    assert error(1e-3) < 1e-11


def check_count_evaluations():
    for n_parameters in (1, 10, 25):
        assert solutions.count_evaluations(n_parameters, "central") == 2 * n_parameters
        assert solutions.count_evaluations(n_parameters, "forward") == n_parameters + 1


def check_bug_in_hiding():
    wrong, hidden, shown = solutions.bug_in_hiding(*problem()[1:], C)
    for seed in range(3):
        assert fastloss.check_gradient(wrong, hidden, seed=seed).passed
        assert not fastloss.check_gradient(wrong, shown, seed=seed).passed


def check_statuses_at_corner():
    passed, statuses, n_kinks = solutions.statuses_at_corner(1)
    assert (passed, statuses) == (True, {"kink"})
    assert n_kinks > 0
    passed, statuses, n_kinks = solutions.statuses_at_corner(2)
    assert (passed, statuses) == (True, {"good"})
    assert n_kinks > 0


def check_check_parts():
    W, X, y = problem()
    objective = fastloss.Objective(X, y, backend="numpy")

    def penalty(W):
        return 1e6 * float((W**2).sum()), 2e6 * W

    def doubled(W):
        loss, dW = objective(W)
        return loss, 2 * dW

    right = {"total": True, "data": True, "penalty": True}
    assert solutions.check_parts(objective, penalty, W) == right
    assert solutions.check_parts(doubled, penalty, W) == {**right, "data": False}


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def test_every_exercise_has_a_checked_solution():
    named = [
        re.findall(r"`solutions\.(\w+)`", exercise)
        for lesson in LESSONS
        for exercise in lesson.exercises
    ]
    assert all(len(names) == 1 for names in named), named
    assert [names[0] for names in named] == list(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_solution(name):
    assert callable(getattr(solutions, name))
    CHECKS[name]()
