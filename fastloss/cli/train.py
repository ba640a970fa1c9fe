"""The commands ``fastloss train`` and ``fastloss predict``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray

from fastloss import plots
from fastloss.arrays import check_finite
from fastloss.cli.common import (
    Attempts,
    DataOption,
    app,
    check_files,
    console,
    progress_bar,
    save_pictures,
    say_saved,
)
from fastloss.data import Split
from fastloss.files import written_whole
from fastloss.model import (
    LinearModel,
    PreprocessingKind,
    accuracy,
    check_place,
    confusion_matrix,
)
from fastloss.optim import History, Record
from fastloss.settings import threads_to_use
from fastloss.tables import Table, seconds
from fastloss.training import (
    MOST_CONFUSED,
    SCHEDULES,
    Job,
    Outcome,
    Settings,
    Trial,
    load_rows,
    parse_sweep,
    short,
    worst_pairs,
)

_PICTURES = ("loss", "confusion", "templates")
_CURVE_ROWS = 12
_TRIALS_SHOWN = 20
_CURVES_SHOWN = 5


@app.command()
def train(
    data: DataOption = None,
    loss: Annotated[str, typer.Option(help="softmax, hinge, squared_hinge, ...")] = "softmax",
    optimizer: Annotated[
        str,
        typer.Option(
            help="sgd, adam, gradient_descent, lbfgs, random_search or random_local_search."
        ),
    ] = "sgd",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default: computed from the data.")
    ] = None,
    l1: Annotated[float, typer.Option(help="Strength of the penalty sum|W|.")] = 0.0,
    l2: Annotated[float | None, typer.Option(help="Strength of the penalty sum(W**2).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of or besides epochs.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows in each step of sgd and adam.")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum in [0, 1).")] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Use Nesterov's momentum.")
    ] = None,
    line_search: Annotated[
        bool | None,
        typer.Option("--line-search", help="Let gradient descent find each step size."),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help=f"Learning-rate schedule: {', '.join(SCHEDULES)}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of rows and of a sweep.")] = 0,
    standardize: Annotated[
        bool | None,
        typer.Option(
            "--standardize/--mean-image",
            help="Subtract the mean of each pixel and divide by its standard deviation, "
            "or only subtract the mean.",
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do neither; scale pixels to [0, 1].")] = False,
    validation: Annotated[
        int | None,
        typer.Option(help="Training rows to set aside; default: one in eight, at most 2,000."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Number of threads; default: all available.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="File of the model; default: model.npz in --out.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state of the run in this file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint without losing a step.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the plots and the history.")] = Path(
        "fastloss-train"
    ),
    json: Annotated[
        str | None, typer.Option(help="Also write the history here; - for standard output.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Settings to try, such as lr=0.01:1:log,l2=1e-5|1e-4|1e-3. Values are drawn "
            "from ranges; lists make a grid. The model with the best validation accuracy is kept."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trials of a sweep; default: 20 if there is a range, else the whole grid."
        ),
    ] = None,
) -> None:
    """Train a linear classifier, report on it, and save it.

    Missing settings are computed from the data. Without --data, the problem is synthetic.
    """
    settings = Settings(
        loss=loss,
        optimizer=optimizer,
        lr=lr,
        l1=l1,
        l2=l2,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        momentum=momentum,
        nesterov=nesterov,
        line_search=line_search,
        schedule=schedule,
        seed=seed,
    )
    save = out / "model.npz" if save is None else save
    _check_outputs(save, out, json, checkpoint, data)
    job = Job(
        settings,
        data=data,
        preprocessing=_preprocessing(standardize, raw),
        validation=validation,
        sweep=sweep,
        n_trials=trials,
        n_threads=threads_to_use() if threads is None else threads,
        checkpoint=checkpoint,
        resume=resume,
    )
    outcome = job.run(progress_bar)
    _write(outcome, save, out, json)
    if not outcome.complete:
        raise typer.Exit(130)


def _preprocessing(standardize: bool | None, raw: bool) -> PreprocessingKind:
    if raw and standardize is not None:
        raise ValueError("--raw leaves pixels as they are: give no --standardize or --mean-image")
    return "none" if raw else "mean_image" if standardize is False else "standardize"


def _check_outputs(
    save: Path, out: Path, json: str | None, checkpoint: Path | None, data: Path | None
) -> None:
    """Raise unless all files can be written; called before the training, which takes minutes."""
    plots.require_matplotlib()
    files = [out / "history.json"]
    files += (path for stem in _PICTURES for path in plots.picture_paths(out / stem))
    outputs = [("--save", save), *(("--out", path) for path in files)]
    if json not in (None, "-"):
        outputs.append(("--json", Path(json)))
    if checkpoint is not None:
        outputs.append(("--checkpoint", checkpoint))
    check_files(outputs, data)
    check_place(save)


def _write(outcome: Outcome, save: Path, out: Path, json: str | None) -> None:
    """Save the model, then the history, the report (or JSON) on standard output, the pictures."""
    attempts, saved = Attempts(), []
    writers = {save: outcome.model.save, out / "history.json": outcome.save}
    if json not in (None, "-"):
        writers[Path(json)] = outcome.save
    for path, write in writers.items():
        with attempts:
            write(path)
            saved.append(path)
    with attempts:
        if json == "-":
            typer.echo(outcome.to_json())
        else:
            _print(outcome, saved)
    with attempts:
        pictures = save_pictures(_pictures(outcome, out))
        if json != "-":
            say_saved(pictures)
    attempts.finish()


def _print(outcome: Outcome, saved: list[Path]) -> None:
    terminal = console()
    terminal.print(f"{outcome.splits}; {outcome.job.preprocessing}", style="bold")
    if outcome.job.sweep is not None:
        terminal.print(_trials_table(outcome).rich())
    terminal.print(f"{outcome.settings}")
    terminal.print(_curve_table(outcome.result.history).rich())
    if not outcome.complete:
        terminal.print("Interrupted; the model trained so far is kept.", style="bold")
    elif outcome.result.why not in ("max_steps", "max_epochs"):
        terminal.print(f"Stopped: {outcome.result.message}")
    shares = [f"{name} {share:.2%}" for name, share in outcome.accuracies.items()]
    terminal.print(f"Accuracy: {', '.join(shares)}", style="bold")
    times = [f"{name} {seconds(value)}" for name, value in outcome.seconds.items()]
    terminal.print(f"Time: {', '.join(times)} on {outcome.job.n_threads} threads")
    say_saved(saved)


def _curve_table(history: History) -> Table:
    """Tabulate evenly spread records, including the first and the last."""
    places = np.linspace(0, len(history) - 1, min(_CURVE_ROWS, len(history))).round().astype(int)
    return Table(
        title="",
        columns=("epoch", "step", "loss", "data", "penalty", "|gradient|", "lr", "validation"),
        rows=[_curve_row(history[place]) for place in places],
        n_labels=0,
    )


def _curve_row(record: Record) -> tuple[str, ...]:
    validation = record.validation_accuracy
    return (
        f"{record.epoch:.4g}",
        f"{record.step}",
        f"{record.loss:.5g}",
        f"{record.data_loss:.5g}",
        f"{record.penalty:.3g}",
        _optional(record.gradient_norm),
        _optional(record.learning_rate),
        "-" if validation is None else f"{validation:.2%}",
    )


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _trials_table(outcome: Outcome) -> Table:
    """Tabulate the trials, best first, with the settings that differ between them."""
    assert outcome.job.sweep is not None
    names = tuple(parse_sweep(outcome.job.sweep))
    shown = outcome.trials[:_TRIALS_SHOWN]
    notes = []
    if len(outcome.trials) > len(shown):
        notes.append(f"and {len(outcome.trials) - len(shown)} more, all of them in history.json")
    return Table(
        title=f"{len(outcome.trials)} trials, best first; the first is kept",
        columns=("trial", *names, "validation", "loss", "time", ""),
        rows=[_trial_row(trial, names) for trial in shown],
        notes=tuple(notes),
    )


def _trial_row(trial: Trial, names: Sequence[str]) -> tuple[str, ...]:
    settings = tuple(short(getattr(trial.settings, name)) for name in names)
    if trial.result is None:
        return (str(trial.number), *settings, "-", "-", "-", trial.failure)
    return (
        str(trial.number),
        *settings,
        f"{trial.accuracy:.2%}",
        f"{trial.result.loss:.5g}",
        seconds(trial.result.seconds),
        "" if trial.complete else "interrupted",
    )


def _pictures(outcome: Outcome, out: Path) -> dict[str, Callable[[], list[Path]]]:
    """Return by name the functions that draw the pictures."""
    model = outcome.model
    histories = {
        _curve_name(outcome, trial): trial.result.history
        for trial in outcome.trials[:_CURVES_SHOWN]
        if trial.result is not None
    }
    names = model.class_names
    pictures: dict[str, Callable[[], list[Path]]] = {
        "loss": partial(plots.plot_loss_curves, histories, out / "loss"),
    }
    if outcome.confusions:
        # The last split is the one farthest from training: test, else validation, else train.
        confusion = list(outcome.confusions.values())[-1]
        pictures["confusion"] = partial(plots.plot_confusion, confusion, names, out / "confusion")
    if model.image_shape is not None:
        pictures["templates"] = partial(
            plots.plot_templates, model.W[:-1], model.image_shape, names, out / "templates"
        )
    return pictures


def _curve_name(outcome: Outcome, trial: Trial) -> str:
    if outcome.job.sweep is None:
        return f"{trial.settings.loss}, {trial.settings.optimizer}"
    names = parse_sweep(outcome.job.sweep)
    return ", ".join(f"{name}={short(getattr(trial.settings, name))}" for name in names)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model saved by fastloss train.")],
    data: Annotated[Path, typer.Option(help="Folder or file, as for fastloss train.")],
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
        check_files([("--out", out)], data, [("the model", model)])
    trained = LinearModel.load(model)
    X, y = _rows(data, split)
    try:
        check_finite("X", X)
    except ValueError as error:
        typer.echo(f"fastloss: {error}: the classes of such rows are meaningless", err=True)
    with np.errstate(over="ignore", invalid="ignore"):
        classes = trained.predict(X)
        if out is not None:
            _write_predictions(out, trained, X, classes, y)
    terminal = console()
    if y is None:
        counts = np.bincount(classes, minlength=trained.n_classes)
        rows = [(name, f"{n}") for name, n in zip(trained.class_names, counts, strict=True)]
        terminal.print(Table(f"{len(X):,} rows", ("class", "rows"), rows).rich())
    else:
        share = accuracy(y, classes, trained.n_classes)
        right = int(np.count_nonzero(y == classes))
        terminal.print(f"Accuracy: {share:.2%} ({right:,} of {len(X):,} rows)")
        if trained.n_classes <= MOST_CONFUSED:
            confusion = confusion_matrix(y, classes, trained.n_classes)
            terminal.print(_pairs_table(confusion, trained.class_names).rich())
    if out is not None:
        say_saved([out])


def _rows(path: Path, split: str | None) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    try:
        return load_rows(path, cast(Split, split or "test"))  # load_rows checks the split
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
    classes: NDArray[np.int64],
    y: NDArray[np.int64] | None,
) -> None:
    columns: dict[str, Any] = {"predicted": classes}
    if y is not None:
        columns["y"] = y
    with written_whole(path) as stream:
        if path.suffix == ".npz":
            scores = model.scores(X)
            np.savez(stream, scores=scores, class_names=np.array(model.class_names), **columns)
            return
        text = TextIOWrapper(stream, "utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(["row", *columns, "class"])
        for row, values in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow([row, *values, model.class_names[values[0]]])
        text.detach()
