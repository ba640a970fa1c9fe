"""`compare`: functions in any form, the processes that time them, and how results are shown."""

from __future__ import annotations

import re
import sys
import threading
from html import unescape

import numpy as np
import pytest

import fastloss
from fastloss.benchmark import Settings, ShownResults, VerificationError, compare
from fastloss.benchmark.results import Cell, Timing
from fastloss.candidates import as_candidates
from fastloss.plots import picture_paths

FAST = Settings(max_rounds=1, cell_seconds=0.1, first_calls=False, measure_ceilings=False)
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)

#: A function that a worker cannot import from a module, as in a script or a notebook.
SCRIPT = """
import numpy as np
import fastloss
from fastloss.benchmark import Settings, compare

def mine(W, X, y):
    return fastloss.loss_and_grad(W, X, y, loss=LOSS, backend="numpy")

LOSS = fastloss.Softmax(label_smoothing=0.1)
settings = Settings(max_rounds=1, cell_seconds=0.1, first_calls=False, measure_ceilings=False)
X, y = np.random.default_rng(0).standard_normal((40, 6)), np.arange(40) % 3
result = compare(mine, X, y, loss=LOSS, backends=("numpy",), settings=settings)
"""


def mine(W, X, y):
    return fastloss.loss_and_grad(W, X, y, backend="numpy")


def wrong(W, X, y):
    loss, dW = mine(W, X, y)
    return loss, -dW


@pytest.fixture(scope="module")
def shown() -> ShownResults:
    """Functions of each kind, a wrong one among them, on lists."""
    scale, lock = 1.0, threading.Lock()

    def closure(W, X, y):
        return mine(scale * W, X, y)

    def locked(W, X, y):
        with lock:
            return mine(W, X, y)

    functions = [mine, closure, lambda W, X, y: mine(W, X, y), wrong, locked]
    return compare(
        functions, X.tolist(), y.tolist(), loss="softmax", backends=("numpy",), settings=FAST
    )


def test_functions_that_can_be_sent_have_a_process_of_their_own(shown):
    (cell,) = shown.cells
    assert (cell.size, cell.dtype) == ("40 x 6 x 3", "float64")
    places = {timing.contender: timing.where for timing in cell.timings}
    (name,) = (name for name in places if name.startswith("lambda, test_compare.py:"))
    assert places == {
        "numpy": "own process",
        "mine": "own process",
        "closure": "own process",
        name: "own process",
        "locked": "this process",
    }
    note = cell.timing("locked").note
    assert "its memory and thread pools are those of this program" in note
    assert "cannot pickle '_thread.lock' object" in note
    assert cell.timing("closure").note == ""


def test_wrong_function_is_refused_and_the_others_stay_in_the_table(shown):
    assert list(shown.cells[0].refused) == ["wrong"]
    text = str(shown)
    assert re.search(r"^wrong +refused", text, re.MULTILINE)
    assert re.search(r"^Refused: wrong.*the gradient is of the wrong sign", text, re.MULTILINE)
    assert re.search(r"^closure +[\d.]+ [µm]s ", text, re.MULTILINE)


def test_text_notebook_and_frame_have_the_same_rows(shown):
    (table,) = shown.tables()
    assert [row[0] for row in table.rows][-1] == "wrong"
    lines = str(shown).splitlines()
    for row in (table.columns, *table.rows):
        assert any(line.split() == " ".join(row).split() for line in lines), row
    html = shown._repr_html_()
    cells = [unescape(cell) for cell in re.findall(r"<t[dh] [^>]*>(.*?)</t[dh]>", html)]
    assert cells == [*table.columns, *(cell for row in table.rows for cell in row)]
    frame = pytest.importorskip("pandas") and shown.to_frame()
    assert sorted(frame["contender"]) == sorted(row[0] for row in table.rows)
    by_name = frame.set_index("contender")
    assert by_name.loc["numpy", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]
    timing = shown.cells[0].timing("mine")
    assert by_name.loc["mine", "median"] == timing.summary.median
    assert by_name.loc["mine", "gradient_error"] < 1e-12
    assert by_name.loc["locked", "where"] == "this process"
    assert by_name.loc["wrong", "rounds"] == 0
    assert by_name.loc["wrong", "note"].startswith("refused: the gradient is of the wrong sign")


def test_repr_is_one_short_line(shown):
    assert (
        repr(shown) == "<5 contenders timed: softmax, 40 x 6 x 3 float64; print it for the table>"
    )


def test_plot_is_a_figure_or_files(shown, tmp_path):
    pytest.importorskip("matplotlib")
    figure = shown.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    (axes,) = figure.axes
    names = {label.get_text() for label in axes.get_yticklabels()}
    assert names == {timing.contender for timing in shown.cells[0].timings}
    paths = shown.plot(tmp_path / "picture.png")
    assert paths == picture_paths(tmp_path / "picture")
    assert all(path.stat().st_size for path in paths)


def test_figure_keeps_the_light_theme_when_it_is_drawn_later(shown):
    mpl = pytest.importorskip("matplotlib")
    before = shown.plot()._repr_png_()
    with mpl.rc_context({"axes.prop_cycle": mpl.cycler(color=["red"]), "font.size": 30}):
        assert shown.plot()._repr_png_() == before


def test_names_are_escaped_in_html():
    timing = Timing("<b>numpy</b>", [1.0])
    cell = Cell("hinge", 4, 3, 2, "float32", [timing], refused={"a&b": "off by <1>"})
    environment = {"cpu": "", "affinity": 1, "threads": 1, "blas": [], "time": "now", "git": ""}
    html = ShownResults("title", "data", environment, cells=[cell])._repr_html_()
    assert "&lt;b&gt;numpy&lt;/b&gt;" in html
    assert "a&amp;b: off by &lt;1&gt;" in html
    assert "<b>numpy" not in html


def test_results_of_a_file_show_the_same_table(shown, tmp_path):
    shown.save(tmp_path / "results.json")
    assert str(ShownResults.load(tmp_path / "results.json")) == str(shown)


def test_without_pandas_the_error_says_how_to_install_it(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"a data frame needs pandas: pip install '\.\[notebook"):
        shown.to_frame()


def test_without_cloudpickle_a_lambda_runs_here_and_the_note_says_how_to_mend_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    result = compare(
        {"mine": lambda W, X, y: mine(W, X, y)}, X, y, backends=("numpy",), settings=FAST
    )
    timing = result.cells[0].timing("mine")
    assert timing.where == "this process"
    assert "pip install '.[notebook]'" in timing.note
    assert "mine: timed in this process" in str(result)


def test_function_of_a_script_has_a_process_of_its_own(run_python):
    pytest.importorskip("cloudpickle")
    told = run_python(f"{SCRIPT}\nprint(result)")
    assert re.search(r"^mine .* own process$", told, re.MULTILINE)
    assert told.startswith("Softmax(label_smoothing=0.1): loss and gradient, 40 x 6 x 3 float64\n")


@pytest.mark.deep
def test_function_of_a_notebook_has_a_process_of_its_own():
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell(source) for source in (SCRIPT, "result", "result.plot()")]
    played = nbclient.NotebookClient(new_notebook(cells=cells), timeout=120).execute()
    (table,), (figure,) = (cell["outputs"] for cell in played["cells"][1:])
    assert re.search(r"<tr><td[^>]*>mine</td>.*?own process", table["data"]["text/html"])
    assert "image/png" in figure["data"]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((mine, X), ValueError, "X is given without y: give both, or neither"),
        ((mine, None, y), ValueError, "y is given without X: give both, or neither"),
        ((3, X, y), TypeError, "candidates must be functions or 'my_module:my_function', got 3"),
        (([mine, 3], X, y), TypeError, "candidate 'int' must be a function"),
        (({"mine": None}, X, y), TypeError, "candidate 'mine' must be a function"),
        (({7: mine}, X, y), TypeError, "the name of a candidate must be a str, got 7"),
        (({"numpy": mine}, X, y), ValueError, "'numpy' is the name of a backend"),
        (("json:nothing", X, y), ValueError, "no such function; json has"),
        ((wrong, X, y), VerificationError, "(?s)wrong: FAILED as softmax.*dW"),
        (({"a": wrong, "b": wrong}, X, y), VerificationError, "(?s)a: FAILED .*\nb: FAILED"),
    ],
)
def test_wrong_argument_is_refused_before_measuring(arguments, error, match):
    with pytest.raises(error, match=match):
        compare(*arguments, settings=FAST)


def test_numbers_that_are_not_finite_are_the_datas_fault():
    with pytest.raises(ValueError, match=r"X\[0, 1\] is nan, expected a finite number"):
        compare(mine, [[1.0, np.nan], [1.0, 2.0]], [0, 1], settings=FAST)


def test_labels_from_one_are_a_warning_and_one_backend_is_enough():
    with pytest.warns(UserWarning, match="no row has the label 0: .* so 4 classes are timed"):
        result = compare(mine, X, y + 1, backends="numpy", settings=FAST)
    assert [timing.contender for timing in result.cells[0].timings] == ["numpy", "mine"]


@pytest.mark.parametrize(
    ("dtype", "told"), [("u1", "uint8 here, where sums wrap"), ("f2", "float16 here, with 11 sig")]
)
def test_refusal_says_what_the_type_of_X_does_to_sums(dtype, told):
    def wraps(W, X, y):
        scores = (X @ W).astype(X.dtype)
        return mine(np.eye(scores.shape[1], dtype=W.dtype), scores.astype(W.dtype), y)[0], mine(
            W, X, y
        )[1]

    rows = rng.integers(0, 256, (40, 6)).astype(dtype)
    cell = compare(wraps, rows, y, backends="numpy", settings=FAST).cells[0]
    assert f"X is {told}" in cell.refused["wraps"]


def test_names_differ_and_none_is_a_backend():
    def numpy(W, X, y):
        return mine(W, X, y)

    made_up = eval("lambda W, X, y: mine(W, X, y)")  # as in the cell of a notebook
    functions = [mine, mine, "json:loads", made_up, made_up, numpy]
    names = [candidate.name for candidate in as_candidates(functions, taken=("numpy",))]
    assert names == ["mine", "mine 2", "json:loads", "lambda", "lambda 2", "numpy 2"]
    for one in (mine, "json:loads", {"json:loads": "json:loads"}):
        assert len(as_candidates(one)) == 1
