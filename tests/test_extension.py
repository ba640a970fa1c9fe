"""Test the registries, losses without compiled forms, and plug-ins with entry points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from contributing import EXAMPLES
from oracle import BACKENDS, LOSSES

import fastloss


@dataclass(frozen=True)
class Uncompiled(fastloss.Loss):
    """Minus the score of the true class."""

    name: ClassVar[str] = "uncompiled"

    def naive(self, scores, label):
        return -scores[label], [-1.0 * (j == label) for j in range(len(scores))]

    def vectorized(self, scores, labels):
        rows = np.arange(len(scores))
        gradient = np.zeros_like(scores)
        gradient[rows, labels] = -1.0
        return -scores[rows, labels], gradient


def test_loss_without_compiled_form_runs_on_numpy(ran):
    X, W, y = np.ones((2000, 20)), np.ones((20, 10)), np.zeros(2000, int)
    total, _ = fastloss.loss_and_grad(W, X, y, Uncompiled())
    fastloss.score_gradient(np.ones((9000, 10)), np.zeros(9000, int), loss=Uncompiled())
    assert ran == ["numpy", "numpy"]
    assert total == -20.0
    assert fastloss.available_backends(Uncompiled()) == ("naive", "numpy")
    message = "backend 'fused' cannot run: the loss 'uncompiled' has no block form"
    calls = [
        lambda **backend: fastloss.loss_and_grad(W, X, y, Uncompiled(), **backend),
        lambda **backend: fastloss.score_gradient(X, y, loss=Uncompiled(), **backend),
        lambda **backend: fastloss.explain(20, 20, 20, loss=Uncompiled(), **backend),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=message):
            call(backend="fused")
        with fastloss.use(backend="fused"), pytest.raises(RuntimeError, match=message):
            call()


def test_base_class_fallbacks():
    """A loss need not define ``pieces`` and ``column_losses``."""
    scores = np.arange(6.0).reshape(2, 3)
    labels = np.array([0, 2])
    assert Uncompiled().pieces(scores, labels) is None
    losses = Uncompiled().column_losses(scores, labels, 2)
    np.testing.assert_array_equal(losses(np.array([7.0, 8.0])), [0.0, -8.0])
    np.testing.assert_array_equal(losses(np.array([1.0, 2.0])), [0.0, -2.0])


# --- the registries ------------------------------------------------------------------------------


class NoDataclass(fastloss.Loss):
    name = "no_dataclass"
    naive = Uncompiled.naive
    vectorized = Uncompiled.vectorized


@dataclass
class NotFrozen(NoDataclass):
    name: ClassVar[str] = "not_frozen"


@dataclass(frozen=True)
class Nameless(fastloss.Loss):
    naive = Uncompiled.naive
    vectorized = Uncompiled.vectorized


@dataclass(frozen=True)
class Abstract(fastloss.Loss):
    name: ClassVar[str] = "abstract"


@pytest.mark.parametrize(
    ("loss", "name", "error", "message"),
    [
        (Uncompiled, "hinge", ValueError, "loss 'hinge' is already registered: Hinge(margin=1.0"),
        (Uncompiled, "Upper", ValueError, "loss name must match [a-z][a-z0-9_]*, got 'Upper'"),
        (Uncompiled, "two words", ValueError, "loss name must match"),
        (Uncompiled, "", ValueError, "loss name must match"),
        (Uncompiled, "line\n", ValueError, "loss name must match"),
        (NoDataclass, None, TypeError, "NoDataclass must be a frozen dataclass"),
        (NotFrozen, None, TypeError, "NotFrozen must be a frozen dataclass"),
        (Nameless, None, TypeError, "Nameless must have a class variable `name`"),
        (Abstract, None, TypeError, "abstract"),
        (int, None, TypeError, "loss must be a fastloss.Loss, got <class 'int'>"),
        ("hinge", None, TypeError, "loss must be a fastloss.Loss, got 'hinge'"),
    ],
)
def test_register_loss_rejects(loss, name, error, message):
    before = fastloss.available_losses()
    with pytest.raises(error, match=re.escape(message)):
        fastloss.register_loss(loss, name)
    assert fastloss.available_losses() == before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("numpy", ValueError, "backend 'numpy' is already registered"),
        ("auto", ValueError, "backend name 'auto' is reserved"),
        ("2fast", ValueError, "backend name must match"),
    ],
)
def test_register_backend_rejects(name, error, message):
    backend = type(fastloss.backends.get_backend("naive"))
    with pytest.raises(error, match=re.escape(message)):
        fastloss.register_backend(backend, name)
    with pytest.raises(TypeError, match="backend must be a fastloss"):
        fastloss.register_backend(object(), "thing")
    with pytest.raises(TypeError, match="abstract"):
        fastloss.register_backend(fastloss.Backend, "thing")


def test_register_under_another_name_and_unregister():
    fastloss.register_loss(fastloss.Hinge(margin=3.0), "wide_hinge")
    try:
        losses, _ = fastloss.score_gradient([[1.0, 2.0]], [0], loss="wide_hinge")
        assert losses[0] == 4.0
    finally:
        fastloss.unregister_loss("wide_hinge")
    for forget in (fastloss.unregister_loss, fastloss.unregister_backend):
        with pytest.raises(ValueError, match="'wide_hinge'; known: "):
            forget("wide_hinge")


def test_every_loss_and_backend_of_the_package_is_registered():
    """Other tests take their parameters from these registries."""
    assert {"softmax", "hinge", "squared_hinge", "crammer_singer", "one_vs_all"} <= set(LOSSES)
    assert set(BACKENDS) == {"naive", "numpy", "numba", "fused"} - set(
        fastloss.unavailable_backends()
    )


# --- entry points --------------------------------------------------------------------------------


def install(folder: Path, entry_points: str) -> None:
    for name, source in EXAMPLES.items():
        (folder / name).write_text(source)
    information = folder / "foo-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foo\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)


USE = """
import numpy as np
import fastloss
{first}
X, y, W = np.ones((4, 2)), np.array([0, 1, 2, 0]), np.ones((2, 3))
losses = [
    fastloss.loss_and_grad(W, X, y, "far_off", backend=backend)[0]
    for backend in ("far_away", "numba", "fused", "naive", "numpy")
]
np.testing.assert_allclose(losses, 9.0)  # 1 + 4 + 4
assert "far_off" in fastloss.available_losses()
assert "far_away" in fastloss.available_backends()
print("done")
"""


@pytest.mark.parametrize("first", ["", "fastloss.available_losses()"], ids=["used", "listed"])
def test_entry_points(first, tmp_path: Path, run_python):
    install(
        tmp_path,
        "[fastloss.losses]\nfar_off = squared_error:SquaredError\n"
        "[fastloss.backends]\nfar_away = einsum:Einsum\n",
    )
    assert run_python(USE.format(first=first), tmp_path) == "done\n"


@pytest.mark.parametrize(
    ("entry_point", "reason"),
    [
        ("hinge = squared_error:SquaredError", "ValueError: loss 'hinge' is already registered"),
        ("absent = nowhere:Loss", "ModuleNotFoundError: No module named 'nowhere'"),
        ("leaves = leaving:Loss", "SystemExit: 3"),
        ("number = math:pi", "TypeError: loss must be a fastloss.Loss"),
        ("Capital = squared_error:SquaredError", "ValueError: loss name must match"),
    ],
)
def test_failing_entry_point_is_skipped(tmp_path: Path, run_python, entry_point, reason):
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    install(tmp_path, f"[fastloss.losses]\n{entry_point}\nfar_off = squared_error:SquaredError\n")
    code = """
        import warnings, fastloss
        with warnings.catch_warnings(record=True, action="always") as told:
            losses = fastloss.available_losses()
        assert {"hinge", "far_off"} <= set(losses), losses
        fastloss.available_losses()
        print(*(warning.message for warning in told), sep="\\n")
        """
    told = run_python(code, tmp_path)
    assert told.startswith(
        f"the entry point {entry_point} of fastloss.losses is left out: {reason}"
    )
    assert told.count("\n") == 1
