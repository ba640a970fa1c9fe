"""The command ``fastloss predict``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray

from fastloss.arrays import check_finite
from fastloss.cli.common import (
    LabelsOption,
    app,
    check_files,
    console,
    progress_bar,
    say_saved,
)
from fastloss.data import Split
from fastloss.files import written_whole
from fastloss.labels import class_numbers
from fastloss.model import LinearModel, accuracy, confusion_matrix
from fastloss.tables import Table
from fastloss.training import MOST_CONFUSED, load_rows, reading, worst_pairs


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model saved by fastloss train.")],
    data: Annotated[Path, typer.Option(help="Folder or file, as for fastloss train.")],
    labels: LabelsOption = None,
    split: Annotated[
        str | None, typer.Option(help="Rows of a folder: train or test; default: test.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the class of each row: .csv, or .npz with scores.")
    ] = None,
) -> None:
    """Predict the class of each row; if there are labels, report the accuracy."""
    if out is not None:
        if out.suffix not in (".csv", ".npz"):
            raise ValueError(f"--out must end in .csv or .npz, got {out}")
        check_files([("--out", out)], data, [("the model", model)], labels)
    trained = LinearModel.load(model)
    with reading(progress_bar):
        X, y = _rows(data, split, labels)
        try:
            check_finite("X", X)
        except ValueError as error:
            typer.echo(f"fastloss: {error}: the classes of such rows are meaningless", err=True)
        predicted = trained.class_numbers(X, require_finite=False)
    if out is not None:
        _write_predictions(out, trained, X, predicted, y)
    terminal = console()
    if y is None:
        counts = np.bincount(predicted, minlength=trained.n_classes)
        rows = [(name, f"{n}") for name, n in zip(trained.class_names, counts, strict=True)]
        terminal.print(Table(f"{len(X):,} rows", ("class", "rows"), rows).rich())
    else:
        true = class_numbers(y, trained.classes, len(X))
        share = accuracy(true, predicted)
        right = int(np.count_nonzero(true == predicted))
        terminal.print(f"Accuracy: {share:.2%} ({right:,} of {len(X):,} rows)")
        if trained.n_classes <= MOST_CONFUSED:
            confusion = confusion_matrix(true, predicted, trained.n_classes)
            terminal.print(_pairs_table(confusion, trained.class_names).rich())
    if out is not None:
        say_saved([out])


def _rows(
    path: Path, split: str | None, labels: str | None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        return load_rows(path, cast(Split, split or "test"), labels)  # it checks the split
    except FileNotFoundError as error:
        if split is None and path.is_dir():
            raise FileNotFoundError(f"{error}; --split train uses the training rows") from error
        raise


def _pairs_table(confusion: NDArray[np.int64], names: Sequence[str]) -> Table:
    totals = confusion.sum(axis=1)
    return Table(
        title="Most often confused",
        columns=("is", "taken for", "rows", "of its class"),
        rows=[
            (names[true], names[given], f"{n}", f"{n / totals[true]:.1%}")
            for true, given, n in worst_pairs(confusion)
        ],
        n_labels=2,
    )


def _write_predictions(
    path: Path,
    model: LinearModel,
    X: NDArray[Any],
    predicted: NDArray[np.int64],
    y: NDArray[Any] | None,
) -> None:
    columns: dict[str, Any] = {"predicted": model.classes[predicted]}
    if y is not None:
        columns["y"] = y
    with written_whole(path) as stream:
        if path.suffix == ".npz":
            scores = model.scores(X, require_finite=False)
            np.savez(stream, scores=scores, class_names=np.array(model.class_names), **columns)
            return
        text = TextIOWrapper(stream, "utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(["row", *columns, "class"])
        for row, values in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow([row, *values, model.class_names[predicted[row]]])
        text.detach()
