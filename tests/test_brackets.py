"""Text with brackets and colons is printed unchanged: Rich must not read it as markup or emoji."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import questions
from asking import Answer, Question
from rich.console import Console
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from fastloss.cli import app, common
from fastloss.lessons import Lesson
from fastloss.tables import Table

#: Tags, closing tags, an install command, a file name and an emoji.
HOSTILE = "[x] [/red] [/] '.[peers]' a[bold].npz :smile: [link]c"
TABLE = Table(HOSTILE, (f"head {HOSTILE}",), [(f"cell {HOSTILE}",)], (f"note {HOSTILE}",))


@pytest.mark.parametrize("table", [TABLE, Table(HOSTILE, (), [], (f"note {HOSTILE}",))])
def test_table_is_the_same_on_any_console(table):
    console = Console(width=200)  # reads markup
    with console.capture() as capture:
        console.print(table.rich())
    expected = 1 + len(table.columns) + len(table.rows) + len(table.notes)
    assert capture.get().count(HOSTILE) == expected


def test_command_line_prints_messages_and_tables_unchanged(capsys):
    common.console().print(HOSTILE, style="bold")
    common.console(stderr=True).print(HOSTILE)
    common.console().print(TABLE.rich())
    common.say_saved([HOSTILE])
    out, err = capsys.readouterr()
    assert (out.count(HOSTILE), err.count(HOSTILE)) == (6, 1)


def test_progress_bar_shows_a_message_unchanged(monkeypatch):
    terminal = Console(width=200, force_terminal=True, record=True, file=sys.stderr)
    monkeypatch.setattr(common, "console", lambda stderr: terminal)
    with common.progress_bar(1) as progress:
        progress(HOSTILE, 0)
        terminal.print("end of the test")
    assert HOSTILE in terminal.export_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("lesson", HOSTILE),
        ("bench", "--dtype", HOSTILE),
        ("bench", "--candidate", f"{HOSTILE}:f"),
        ("predict", f"{HOSTILE}.npz", "--data", f"{HOSTILE}.npz"),
        (HOSTILE,),
        ("bench", f"--{HOSTILE}"),
    ],
)
def test_error_names_the_argument_unchanged(arguments):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert HOSTILE in result.stderr


def test_question_and_its_answer_are_printed_unchanged(monkeypatch, capsys):
    asked = Question("q[b]", HOSTILE, lambda problems: Answer(HOSTILE, TABLE, HOSTILE))
    monkeypatch.setattr(questions, "QUESTIONS", {"q[b]": asked})
    questions.main([])
    out = capsys.readouterr().out
    assert f"q[b]: {HOSTILE}\n{HOSTILE}\n({HOSTILE})\n" in out
    assert out.count(HOSTILE) == 7


def test_lesson_is_listed_and_played_unchanged(monkeypatch, tmp_path):
    path = tmp_path / "1_x.py"
    text = f"# %% [markdown]\n# # Lesson 1: {HOSTILE}\n#\n# {HOSTILE}\n"
    exercise = f"# %% [markdown]\n# ### Exercise 1: {HOSTILE}\n"
    path.write_text(f"{text}# %%\n# {HOSTILE}\n{exercise}")
    monkeypatch.setattr("fastloss.cli.lesson.all_lessons", lambda: (Lesson(path),))
    monkeypatch.setattr("fastloss.cli.lesson.find_lesson", lambda number: Lesson(path))
    listed = CliRunner().invoke(app, ["lesson"]).stdout
    # Title, summary and exercise, in lines of a few words.
    assert {listed.count(word) for word in HOSTILE.split()} == {3}
    played = CliRunner().invoke(app, ["lesson", "1", "--out", str(tmp_path)]).stdout
    assert played.count(HOSTILE) == 4  # and the code


def test_only_one_place_makes_a_console():
    """All output of Rich goes through `fastloss.cli.common.console`, which reads no markup."""
    root = Path(common.__file__).parents[2]
    sources = [path for folder in ("fastloss", "bench") for path in root.glob(f"{folder}/**/*.py")]
    assert len(sources) > 100
    makers = re.compile(r"\bConsole\(|from rich import .*\bprint\b|rich\.print\b")
    assert not [path for path in sources if makers.search(path.read_text())]


def test_help_has_nothing_that_rich_reads_as_markup():
    commands = [get_command(app)]
    commands += commands[0].commands.values()
    texts = [text for c in commands for text in (c.help, *(p.help for p in c.params if p.help))]
    assert len(texts) > 50
    for text in texts:
        assert Text.from_markup(text).plain == text
