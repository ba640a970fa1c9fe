"""Tests of pictures: their files, colours, labels and shapes."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

import fastloss
from fastloss import optim, plots

ROOT = Path(__file__).parents[1]
SUFFIXES = (".png", ".svg", "-dark.png", "-dark.svg")


def draw_nothing_much(figure: Figure) -> None:
    ax = figure.subplots()
    ax.plot([1, 2], [3, 4], color=plots.BLUE)
    plots.label(ax, "a <label> & more", (1, 3), plots.VERMILION)


def text_of(path: Path) -> str:
    """Return all text in an SVG."""
    return " ".join("".join(element.itertext()) for element in ET.parse(path).iter())


# Files


def test_picture_writes_exactly_four_files(tmp_path):
    paths = plots.picture(draw_nothing_much, tmp_path / "new" / "mnist-0.1", 4, 3)
    assert paths == [tmp_path / "new" / f"mnist-0.1{suffix}" for suffix in SUFFIXES]
    assert {*(tmp_path / "new").iterdir()} == {*paths}
    for path in paths[::2]:
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (520, 390), "P")
    for path in paths[1::2]:
        assert "a <label> & more" in text_of(path)


def test_equal_pictures_are_equal_files_under_any_rcparams(tmp_path):
    first = [path.read_bytes() for path in plots.picture(draw_nothing_much, tmp_path / "a")]
    with mpl.rc_context({"font.size": 20, "xtick.labelsize": 20, "axes.spines.left": False}):
        second = [path.read_bytes() for path in plots.picture(draw_nothing_much, tmp_path / "a")]
        assert mpl.rcParams["font.size"] == 20  # the user's setting is kept
    assert first == second


def test_each_theme_has_its_background(tmp_path):
    light, _, dark, _ = plots.picture(draw_nothing_much, tmp_path / "a")
    corners = []
    for path in (light, dark):
        with Image.open(path) as image:
            corners.append(image.convert("RGB").getpixel((0, 0)))
    assert corners == [(255, 255, 255), (13, 17, 23)]


def test_failed_drawing_keeps_the_old_picture(tmp_path):
    (path, *_) = plots.picture(draw_nothing_much, tmp_path / "a")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="unknown_command"):
        plots.picture(lambda figure: figure.text(0, 0, r"$\unknown_command$"), tmp_path / "a")
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4


def test_missing_matplotlib_names_the_extra_to_install(run_python):
    told = run_python(
        """
        import sys
        sys.modules["matplotlib"] = None
        from fastloss import plots
        try:
            plots.picture(print, "never")
        except ImportError as error:
            print(error)
        """
    )
    assert (
        told.strip() == "pictures need Matplotlib: pip install '.[bench]' in a checkout of fastloss"
    )


def test_embedded_pictures_follow_the_theme_of_the_page():
    seen = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen[tag] = dict(attrs)

    Reader().feed(plots.embed("a/b", 'loss "and" time'))
    assert seen == {
        "picture": {},
        "source": {"media": "(prefers-color-scheme: dark)", "srcset": "a/b-dark.png"},
        "img": {"alt": 'loss "and" time', "src": "a/b.png"},
    }


# Colours

# Linear RGB as seen without one kind of cones. G. Machado, M. Oliveira and L. Fernandes, A
# physiologically-based model for simulation of color vision deficiency, 2009.
SIGHTS = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Convert to CIE L*a*b*, in which a distance of 2 is just visible."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    x, y, z = np.cbrt(to_xyz @ rgb.clip(1e-4, 1) / [0.95047, 1.0, 1.08883])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", plots.THEMES, ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_differ_for_every_kind_of_sight(theme, sight):
    seen = [lab(np.array(SIGHTS[sight]) @ linear(colour)) for colour in theme.hues]
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(a - b) > 11


@pytest.mark.parametrize("theme", plots.THEMES, ids=["light", "dark"])
def test_colours_stand_out_from_the_background(theme):
    """WCAG 2.1 asks for a contrast of 3 for graphics and 7 for easily legible text."""

    def contrast(colour):
        light, paper = (linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (colour, theme.paper))
        return max(light / paper, paper / light)

    assert min(map(contrast, theme.hues)) > 3
    assert contrast(theme.ink) > 7
    assert contrast(theme.faint) < 2


def test_colour_names_resolve_to_the_theme(tmp_path):
    seen = []
    plots.picture(
        lambda figure: seen.append([to_rgb(c) for c in (plots.GREY, plots.INK, plots.PAPER)]),
        tmp_path / "a",
    )
    for theme, colours in zip(plots.THEMES, seen, strict=True):
        assert colours == [to_rgb(c) for c in (theme.hues[-1], theme.ink, theme.paper)]


# Labels


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.9, 0.2, 0.86], [0.93, 0.2, 0.83]),
        ([0.5, 0.5, 0.5, 0.56], [0.365, 0.465, 0.565, 0.665]),
    ],
)
def test_labels_move_apart_by_the_least_distance(places, expected):
    np.testing.assert_allclose(plots.apart(places, 0.1), expected, atol=1e-12)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    figure.canvas.draw()
    texts = [text for ax in figure.axes for text in ax.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, p), (b, q) in itertools.combinations(boxes, 2) if p.overlaps(q)]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_labels_do_not_overlap(scale, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 30, (2, 9))
    found = []

    def draw(figure):
        ax = figure.subplots()
        ax.set_xscale(scale)
        ax.set_yscale(scale)
        ax.plot(x, y, "o")
        plots.label_ends(ax, [(value, f"line {value:.2f}", plots.INK) for value in y])
        figure.canvas.draw()
        found.extend(overlaps(figure))

    plots.picture(draw, tmp_path / "ends")

    def draw_points(figure):
        ax = figure.subplots()
        ax.set_xscale(scale)
        ax.set_yscale(scale)
        ax.plot(x, y, "o")
        ax.margins(0.2)
        plots.label_points(ax, [(*place, "a point", plots.INK) for place in zip(x, y, strict=True)])
        figure.canvas.draw()
        found.extend(overlaps(figure))

    plots.picture(draw_points, tmp_path / "points")
    assert found == []


# Training


@pytest.fixture(scope="module")
def histories():
    rows = fastloss.data.synthetic(300, 12, 4)
    objective = fastloss.Objective(rows.X, rows.y, backend="numpy", n_threads=1)
    start = np.zeros((12, 4), np.float32)
    return {
        name: optim.minimize(
            objective,
            start,
            method,
            max_steps=30,
            validation=lambda W: float(((rows.X @ W).argmax(1) == rows.y).mean()),
        ).history
        for name, method in {
            "guesses": optim.RandomSearch(0.1),
            "downhill": optim.GradientDescent(lr=0.1),
        }.items()
    }


def test_loss_curves_are_labelled_with_name_and_last_value(histories, tmp_path):
    paths = plots.plot_loss_curves(histories, tmp_path / "curves", text="Going down")
    assert [path.name for path in paths] == [f"curves{suffix}" for suffix in SUFFIXES]
    text = text_of(paths[1])
    for part in ("Going down", "evaluations", "loss, penalty included", "validation accuracy"):
        assert part in text
    for name, history in histories.items():
        assert f"{name} {history[-1].loss:.3g}" in text
        assert f"{name} {plots.percent(history[-1].validation_accuracy)}" in text


def test_loss_curves_without_accuracies_have_one_panel(tmp_path):
    objective = fastloss.Objective(np.eye(3), [0, 1, 2], backend="numpy", n_threads=1)
    history = optim.minimize(objective, np.zeros((3, 3)), "gradient_descent", max_steps=3).history
    _, svg, *_ = plots.plot_loss_curves({"run": history}, tmp_path / "a", against="seconds")
    text = text_of(svg)
    assert "seconds" in text
    assert "accuracy" not in text
    # A run with one record is drawn as a point.
    plots.plot_loss_curves({"run": history[:1]}, tmp_path / "b")


def test_ladder_labels_have_their_remarks(histories, tmp_path):
    _, svg, *_ = plots.plot_ladder(
        histories, tmp_path / "a", text="Up", remarks={"guesses": " (as ever)"}
    )
    text = text_of(svg)
    for part in ("Up", "(as ever)", "log scale", "validation accuracy"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "at least one history"),
        (({"empty": optim.History()},), "'empty' has no records"),
    ],
)
def test_missing_histories_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.plot_loss_curves(*arguments, tmp_path / "a")


def test_curves_can_be_drawn_against_another_column(histories, tmp_path):
    with pytest.raises(ValueError, match=r"against must be one of .*seconds.*'hours'"):
        plots.plot_loss_curves(histories, tmp_path / "a", against="hours")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_templates_leave_the_bias_out(shape, bias, tmp_path):
    W = np.random.default_rng(0).standard_normal((int(np.prod(shape)), 7)).astype(np.float32)
    names = [f"class {i}" for i in range(7)]
    first = plots.plot_templates(W, shape, names, tmp_path / "a")
    assert all(name in text_of(first[1]) for name in names)
    if bias:
        with_bias = np.vstack([W, np.full((1, 7), 100, np.float32)])
        second = plots.plot_templates(with_bias, shape, names, tmp_path / "b")
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize(
    ("first", "other"), [((3, 4, 5), (4, 5, 3)), ((4, 5), (4, 5, 1)), ((4, 5), (1, 4, 5))]
)
def test_colour_axis_first_or_last_gives_the_same_templates(first, other, tmp_path):
    W = np.random.default_rng(0).standard_normal((math.prod(first), 2))
    moved = W
    if first[0] == 3:
        moved = W.reshape(3, 20, 2).transpose(1, 0, 2).reshape(60, 2)
    paths = [
        plots.plot_templates(weights, shape, "ab", tmp_path / name)
        for name, weights, shape in (("a", W, first), ("b", moved, other))
    ]
    for one, same in zip(*paths, strict=True):
        assert one.read_bytes() == same.read_bytes()


def test_templates_of_zeros_can_be_drawn(tmp_path):
    plots.plot_templates(np.zeros((20, 2)), (4, 5), "ab", tmp_path / "a")


@pytest.mark.parametrize(
    ("W", "shape", "names", "message"),
    [
        (np.ones((22, 2)), (4, 5), "ab", r"W must have 20 rows .* got shape \(22, 2\)"),
        (np.ones(20), (4, 5), "ab", r"got shape \(20,\)"),
        (np.ones((20, 2)), (20,), "ab", r"image_shape must be .* got \(20,\)"),
        (np.ones((20, 2)), (2, 2, 5), "ab", r"image_shape must be .* got \(2, 2, 5\)"),
        (np.ones((20, 2)), (4, 5), "abc", "class_names must hold 2 names, .* got 3"),
    ],
)
def test_templates_of_a_wrong_shape_are_refused(W, shape, names, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.plot_templates(W, shape, names, tmp_path / "a")


def test_confusion_matrix_shows_shares_of_rows(tmp_path):
    _, svg, *_ = plots.plot_confusion([[30, 10], [0, 0]], ["yes", "no"], tmp_path / "a")
    text = text_of(svg)
    for part in ("75 %", "25 %", "75.0 % of 40 rows right", "predicted class", "true class"):
        assert part in text
    assert "nan" not in text


def test_confusion_matrix_of_many_classes_has_no_names(tmp_path):
    names = [f"class {i}" for i in range(40)]
    _, svg, *_ = plots.plot_confusion(np.eye(40, dtype=int), names, tmp_path / "a")
    assert "class 7" not in text_of(svg)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 2]], r"square, got shape \(1, 2\)"),
        ([[1, -2], [1, 1]], "counts >= 0"),
        ([[0, 0], [0, 0]], "not only zeros"),
        (np.eye(3), "class_names must hold 3 names"),
    ],
)
def test_invalid_confusion_matrix_is_refused(matrix, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plots.plot_confusion(matrix, "ab", tmp_path / "a")


def test_slices_and_surfaces_are_drawn(tmp_path):
    a, b = np.linspace(-1, 1, 9), np.linspace(-2, 2, 7)
    _, svg, *_ = plots.plot_slice(a, {"bowl": a**2}, tmp_path / "a", text="A bowl", highest=0.5)
    for part in ("A bowl", "bowl", "a, in L(W + a W1)", "loss"):
        assert part in text_of(svg)
    losses = np.add.outer((a - 0.5) ** 2, b**2) + 3
    _, svg, *_ = plots.plot_surface(a, b, losses, tmp_path / "b", text="A bowl again")
    for part in ("A bowl again", "a, along W1", "b, along W2", "lowest here: 3"):
        assert part in text_of(svg)


def test_slices_of_a_wrong_shape_are_refused(tmp_path):
    a, b = np.zeros(3), np.zeros(4)
    with pytest.raises(ValueError, match=r"losses\['x'\] must have the shape of a, \(3,\)"):
        plots.plot_slice(a, {"x": b}, tmp_path / "a", text="")
    with pytest.raises(ValueError, match=r"losses must have shape \(3, 4\)"):
        plots.plot_surface(a, b, np.zeros((4, 3)), tmp_path / "a", text="")
