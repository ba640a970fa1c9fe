"""Tables, and how times and sizes are written in them."""

from __future__ import annotations

import pytest
from rich.console import Console

from fastloss.tables import Table, seconds, size_of

TABLE = Table("Losses", ("loss", "a|b"), [("hinge", "1"), ("softmax", "20")], ("A note.",))


def test_markdown_aligns_numbers_and_escapes_bars():
    assert TABLE.markdown().splitlines() == [
        r"| loss | a\|b |",
        "| --- | ---: |",
        "| hinge | 1 |",
        "| softmax | 20 |",
        "",
        "A note.",
    ]


def test_terminal_table_has_title_rows_and_notes():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(TABLE.rich())
    for text in ("Losses", "a|b", "softmax", "20", "A note."):
        assert text in capture.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (2.5e-6, "2.5 µs"),
        (0.0319, "31.9 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (600.0, "10 min"),
        (90_000.0, "25 h"),
    ],
)
def test_durations_have_a_unit(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(None, "-"), (2048, "2 KiB"), (3 * 2**20, "3.0 MiB"), (30 * 2**20, "30 MiB")],
)
def test_sizes_have_a_unit(n_bytes, text):
    assert size_of(n_bytes) == text
