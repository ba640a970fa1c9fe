"""The command ``fastloss train``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fastloss import plots
from fastloss.cli.cluster import SchedulerOption, WorkersOption, run_on_workers
from fastloss.cli.common import (
    Attempts,
    DataOption,
    LabelsOption,
    app,
    check_files,
    console,
    progress_bar,
    save_pictures,
    say_saved,
)
from fastloss.model import check_place
from fastloss.optim import History, Record
from fastloss.optim.checkpoint import Checkpoint
from fastloss.preprocessing import PreprocessingKind
from fastloss.settings import threads_to_use
from fastloss.tables import Table, seconds
from fastloss.training import (
    SCHEDULES,
    Job,
    Outcome,
    Settings,
    Trial,
    parse_sweep,
    short,
)

_PICTURES = ("loss", "confusion", "templates")
_CURVE_ROWS = 12
_TRIALS_SHOWN = 20
_CURVES_SHOWN = 5


@app.command()
def train(
    data: DataOption = None,
    labels: LabelsOption = None,
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
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
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
        typer.Option(
            help="Training rows to set aside; default: one in eight, at most 2,000. They are the "
            "last rows, or drawn from each class if the last rows misrepresent a class. 0: none."
        ),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            help="balanced, or weights by class name, such as cat=2,dog=1; a missing class has 1."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop when so many records in a row (one an epoch, or one a step on all rows) "
            "do not raise the validation accuracy."
        ),
    ] = None,
    restore_best: Annotated[
        bool | None,
        typer.Option(
            "--restore-best/--keep-last",
            help="Keep the W of the record with the highest validation accuracy (the earliest on "
            "a tie), or the last W. Default: the best with --patience, else the last.",
        ),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Read rows from the disk in blocks, or copy them into memory first. Default: read "
            "if X.npy is large: its float copy would take a quarter of the memory.",
        ),
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
        bool,
        typer.Option(
            "--resume",
            help="Continue from the checkpoint without losing a step; repeat all other options.",
        ),
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

    Missing settings are computed from the data. Without --data, the problem is synthetic. X.npy may
    be larger than memory; tables are read into memory. With --workers or --scheduler, --data is a
    folder of parts, X-*.npy with y-*.npy, that all workers can read.
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
        class_weight=class_weight,
        patience=patience,
        restore_best=restore_best,
        seed=seed,
    )
    save = out / "model.npz" if save is None else save
    _check_outputs(save, out, json, checkpoint, data, labels)
    job = Job(
        settings,
        data=data,
        labels=labels,
        stream=stream,
        preprocessing=_preprocessing(standardize, raw),
        validation=validation,
        sweep=sweep,
        n_trials=trials,
        n_threads=threads_to_use() if threads is None else threads,
        checkpoint=checkpoint,
        resume=resume,
    )
    step = None  # read now, because the run replaces the file
    if checkpoint is not None and resume:
        step = Checkpoint.load(checkpoint).state.step
    if scheduler is not None or workers is not None:
        outcome = run_on_workers(job, scheduler, workers)
    else:
        outcome = job.run(progress_bar, lambda line: typer.echo(f"fastloss: {line}", err=True))
    if step is not None:
        typer.echo(f"fastloss: resumed after step {step} of {checkpoint}", err=True)
    _write(outcome, save, out, json)
    if not outcome.complete:
        raise typer.Exit(130)


def _preprocessing(standardize: bool | None, raw: bool) -> PreprocessingKind:
    if raw and standardize is not None:
        raise ValueError("--raw leaves pixels as they are: give no --standardize or --mean-image")
    return "none" if raw else "mean_image" if standardize is False else "standardize"


def _check_outputs(
    save: Path,
    out: Path,
    json: str | None,
    checkpoint: Path | None,
    data: Path | None,
    labels: str | None,
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
    check_files(outputs, data, labels=labels)
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
    kept = outcome.result.record
    if kept.step < outcome.result.n_steps:
        terminal.print(f"Kept W of epoch {kept.epoch:.4g}, the best on the validation rows.")
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
