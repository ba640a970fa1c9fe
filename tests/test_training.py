"""Tests of fastloss.training: default settings, splits, sweeps and jobs."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from fastloss import Objective, available_losses, data, optim
from fastloss.data import Dataset
from fastloss.training import (
    SCHEDULES,
    Job,
    Prepared,
    Scale,
    Settings,
    Splits,
    Trial,
    fill_in,
    fit,
    load_rows,
    load_splits,
    make_method,
    parse_sweep,
    plan_trials,
    run_sweep,
    short,
    worst_pairs,
)
from fastloss.training.settings import total_steps
from fastloss.training.sweep import Choices, Range

SMALL = data.synthetic(400, 15, 4, seed=3)


def save_npz(path, n=160, D=6, C=3, seed=0):
    rows = data.synthetic(n, D, C, seed=seed)
    np.savez(path, X=rows.X, y=rows.y)
    return path


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return Prepared.of(Splits(SMALL.rows(slice(300)), SMALL.rows(slice(300, 400))), "standardize")


def filled(prepared: Prepared, **settings) -> Settings:
    return fill_in(Settings(**{"epochs": 3, "batch_size": 32, **settings}), prepared.scale)


# Settings


@pytest.mark.parametrize("optimizer", optim.available_methods())
@pytest.mark.parametrize("loss", available_losses())
def test_default_settings_train_every_loss_with_every_method(prepared, loss, optimizer):
    settings = fill_in(Settings(loss=loss, optimizer=optimizer), prepared.scale)
    assert settings.l2 is not None
    assert settings.epochs or settings.steps
    short_run = replace(settings, epochs=2, steps=15)
    result = fit(prepared, short_run)
    assert result.loss <= result.history[0].loss
    if "search" not in optimizer:
        assert result.loss < result.history[0].loss
    assert result.n_steps <= total_steps(short_run, len(prepared.X))


SCALE = Scale(n_rows=1000, squared_length=20.0, curvature=5.0)


def test_given_settings_are_kept():
    said = Settings(lr=0.5, l2=0.0, steps=7, batch_size=3, momentum=0.1, schedule="step")
    assert fill_in(said, SCALE) == said


def test_given_limit_replaces_the_default_limit():
    assert fill_in(Settings(steps=7), SCALE).epochs is None
    assert fill_in(Settings(epochs=2), SCALE).steps is None


@pytest.mark.parametrize("loss", available_losses())
def test_defaults_follow_the_scale_of_the_rows(loss):
    """Rows 10 times as long need weights 1/10 as large for equal scores, and lr 1/100 as large."""
    far = Scale(1000, 2000.0, 500.0)
    one, other = (fill_in(Settings(loss=loss), scale) for scale in (SCALE, far))
    np.testing.assert_allclose(one.lr / other.lr, 100, rtol=0.05)
    np.testing.assert_allclose(other.l2 / one.l2, 100, rtol=0.05)
    np.testing.assert_allclose(one.l2, 20 / (2 * 4**2 * 1000), rtol=0.05)
    more = fill_in(Settings(loss=loss), replace(SCALE, n_rows=50_000))
    assert more.lr > 5 * one.lr
    assert more.epochs == 20
    assert one.epochs == 64  # 500 steps of 128 rows


def test_scale_matches_its_definition(prepared):
    X = np.column_stack([prepared.X, np.ones(len(prepared.X))]).astype(float)
    scale = prepared.scale
    assert scale.n_rows == len(X)
    np.testing.assert_allclose(scale.squared_length, np.mean(np.sum(X**2, axis=1)), rtol=1e-6)
    np.testing.assert_allclose(scale.curvature, np.linalg.eigvalsh(X.T @ X / len(X))[-1], rtol=1e-2)


def test_rows_of_zeros_have_a_finite_learning_rate():
    rows = Dataset(np.zeros((6, 2)), np.arange(6) % 2, "zeros", ("a", "b"), None, "")
    scale = Prepared.of(Splits(rows)).scale
    assert (scale.squared_length, scale.curvature) == (1.0, 1.0)
    assert math.isfinite(fill_in(Settings(), scale).lr)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": "nope"}, "unknown loss 'nope'; known: "),
        ({"optimizer": "nope"}, "unknown method 'nope'; known: "),
        ({"schedule": "nope"}, "unknown schedule 'nope'; known: 'constant', 'cosine'"),
        ({"epochs": 0}, "epochs must be > 0, got 0"),
        ({"epochs": math.nan}, "epochs must be > 0, got nan"),
        ({"steps": -1}, "steps must be >= 1, got -1"),
    ],
)
def test_invalid_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"optimizer": "lbfgs", "momentum": 0.9}, "'lbfgs' takes no momentum; .* it takes none"),
        ({"optimizer": "adam", "nesterov": True}, "'adam' takes no nesterov; .* takes lr, batch_s"),
        ({"optimizer": "gradient_descent", "batch_size": 5}, "takes no batch_size"),
        ({"lr": -1.0}, "lr must be finite and > 0"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
    ],
)
def test_parameters_that_a_method_does_not_take_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        make_method(fill_in(Settings(**settings), SCALE))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("balanced", "balanced"),
        ("none", None),
        ("cat=2, a=b=0.5", {"cat": 2.0, "a=b": 0.5}),
        ({"cat": 2}, {"cat": 2.0}),
    ],
)
def test_class_weights_are_read_from_text(given, kept):
    assert Settings(class_weight=given).class_weight == kept


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("balance", ValueError, "reads balanced, none or name=weight,...; got 'balance'"),
        ("cat=x", ValueError, "got 'cat=x'"),
        ("cat=1,cat=2", ValueError, "class_weight names a class twice"),
        ("cat=-1", ValueError, r"class_weight\['cat'\] must be finite and >= 0, got -1.0"),
        ([1, 2], TypeError, "class_weight must be a mapping, 'balanced' or text, got"),
    ],
)
def test_malformed_class_weights_are_refused(given, error, match):
    with pytest.raises(error, match=match):
        Settings(class_weight=given)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_span_the_run(name):
    method = make_method(fill_in(Settings(epochs=8, schedule=name), SCALE))
    factors = [method.schedule(epoch) for epoch in np.linspace(0, 8, 50)]
    assert factors[0] == 1
    assert (np.diff(factors) <= 0).all()
    if name != "constant":
        assert factors[-1] < 0.1


def test_total_steps_is_the_smaller_limit():
    assert total_steps(Settings(epochs=2.5, batch_size=32), 100) == 10
    assert total_steps(Settings(epochs=3, batch_size=1000), 100) == 3
    assert total_steps(Settings(epochs=100, steps=7, batch_size=32), 100) == 7
    assert total_steps(Settings(epochs=9, optimizer="gradient_descent"), 100) == 9


def test_short_keeps_four_digits():
    assert [short(v) for v in (1e-5, 0.123456, 3, None)] == ["1e-05", "0.1235", "3", "None"]


# Splits


@pytest.mark.parametrize(("n", "validation"), [(160, 20), (40_000, 2000)])
def test_validation_rows_are_the_last_ones(tmp_path, n, validation):
    path = save_npz(tmp_path / "d.npz", n, 2)
    whole = data.load(path)
    splits = load_splits(path)
    assert (len(splits.train), len(splits.validation), splits.test) == (
        n - validation,
        validation,
        None,
    )
    np.testing.assert_array_equal(splits.train.X, whole.X[:-validation])
    np.testing.assert_array_equal(splits.validation.y, whole.y[-validation:])


def test_sorted_labels_are_drawn_from_in_proportion(tmp_path):
    X, y = np.arange(300.0).reshape(100, 3), np.arange(100) // 25
    np.savez(tmp_path / "d.npz", X=X, y=y)
    splits = load_splits(tmp_path / "d.npz", validation=40, seed=1)
    assert set(splits.validation.y) == set(splits.train.y) == {0, 1, 2, 3}
    rows = np.concatenate([splits.train.X[:, 0], splits.validation.X[:, 0]])
    np.testing.assert_array_equal(np.sort(rows), X[:, 0])
    again = load_splits(tmp_path / "d.npz", validation=40, seed=1)
    np.testing.assert_array_equal(again.train.X, splits.train.X)


@pytest.mark.parametrize("validation", [-1, 160, 161])
def test_validation_must_leave_training_rows(tmp_path, validation):
    path = save_npz(tmp_path / "d.npz")
    with pytest.raises(ValueError, match=rf"validation must be in \[0, 160\).* got {validation}"):
        load_splits(path, validation=validation)


def test_validation_of_0_sets_no_rows_aside(tmp_path):
    splits = load_splits(save_npz(tmp_path / "d.npz"), validation=0)
    assert splits.validation is None
    assert str(splits) == "d: 160 rows to train on, none for validation, none for test"
    assert Prepared.of(splits).X_validation is None


def test_synthetic_problem_depends_on_the_seed():
    one, same, other = (load_splits(None, seed=seed) for seed in (1, 1, 2))
    assert len(one.test) == 2000
    np.testing.assert_array_equal(one.test.X, same.test.X)
    assert not np.array_equal(one.test.X, other.test.X)


def test_load_rows_accepts_missing_labels(tmp_path):
    np.savez(tmp_path / "d.npz", X=np.zeros((5, 2, 3), np.uint8))
    X, y = load_rows(tmp_path / "d.npz", "test")
    assert X.shape == (5, 6)
    assert y is None
    X, y = load_rows(save_npz(tmp_path / "d.npz"), "test")
    assert len(X) == len(y) == 160
    (tmp_path / "d.npz").write_bytes(b"PK nonsense")
    with pytest.raises(data.DataFormatError, match=r"d\.npz"):
        load_rows(tmp_path / "d.npz", "test")


def test_one_class_is_refused():
    rows = Dataset(np.zeros((5, 2)), np.zeros(5, np.int64), "one", ("a",), None, "")
    with pytest.raises(ValueError, match="one has too few classes: 'a'; 2 needed"):
        Prepared.of(Splits(rows))


# One run


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "gradient_descent"])
def test_run_has_the_same_bits_on_any_number_of_threads(prepared, optimizer):
    settings = filled(prepared, optimizer=optimizer, batch_size=None)
    one, two = (fit(prepared, settings, n_threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.W, two.W)
    for name in ("loss", "validation_accuracy"):
        np.testing.assert_array_equal(one.history.column(name), two.history.column(name))


def test_loss_of_a_run_is_the_loss_of_its_objective(prepared):
    settings = filled(prepared, loss="hinge", l1=1e-3, l2=1e-2)
    result = fit(prepared, settings)
    objective = Objective(
        prepared.X, prepared.splits.train.y, loss="hinge", l1=1e-3, l2=1e-2, intercept=True
    )
    np.testing.assert_allclose(result.loss, objective.loss(result.W), rtol=1e-6)
    scores = prepared.X_validation @ result.W[:-1] + result.W[-1]
    share = np.mean(scores.argmax(axis=1) == prepared.splits.validation.y)
    np.testing.assert_allclose(result.history[-1].validation_accuracy, share)


def test_class_weights_reach_the_loss(prepared):
    y = prepared.splits.train.y
    for weights, by_number in (("balanced", "balanced"), ({"2": 5.0}, {2: 5.0})):
        objective = prepared.objective(filled(prepared, class_weight=weights))
        expected = Objective(prepared.X, y, class_weight=by_number)
        np.testing.assert_array_equal(objective.row_weights, expected.row_weights)
    with pytest.raises(ValueError, match=r"class_weight names 9, which is none of .* '0', '1'"):
        prepared.check_model(filled(prepared, class_weight={"9": 2.0}))


def test_best_is_kept_by_default_only_with_patience(prepared):
    settings = filled(prepared, epochs=20, lr=0.3, schedule="constant")
    assert fit(prepared, settings).record.step == 200
    result = fit(prepared, replace(settings, patience=2))
    shares = result.history.column("validation_accuracy")
    assert result.why == "patience"
    assert result.record.validation_accuracy == shares.max() > shares[-1]
    last = fit(prepared, replace(settings, patience=2, restore_best=False))
    assert last.record == last.history[-1]


def test_lbfgs_finds_the_minimum_of_scikit_learn(prepared):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = prepared.X.astype(np.float64), prepared.splits.train.y
    peer = linear_model.LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(X, y)
    settings = filled(
        prepared, optimizer="lbfgs", l2=0.5 / len(X), epochs=None, batch_size=None, steps=500
    )
    result = fit(prepared, settings)
    W = np.vstack([peer.coef_.T, peer.intercept_])
    objective = Objective(X, y, l2=0.5 / len(X), intercept=True)
    np.testing.assert_allclose(objective.loss(result.W.astype(float)), objective.loss(W), rtol=1e-5)


# Sweeps


def test_parse_sweep_reads_lists_and_ranges():
    sweep = parse_sweep("lr=0.01:1:log, l2=1e-5|1e-4|1e-4,batch-size=16:64,loss=hinge|softmax")
    assert sweep == {
        "lr": Range(0.01, 1.0, log=True, whole=False),
        "l2": Choices((1e-5, 1e-4)),
        "batch_size": Range(16, 64, log=False, whole=True),
        "loss": Choices(("hinge", "softmax")),
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "a sweep reads name=a|b|c"),
        ("lr", "got 'lr'"),
        ("lr=", "got 'lr='"),
        ("=3", "got '=3'"),
        ("lr=1,", "got ''"),
        ("nope=1|2", "unknown sweep parameter 'nope'; known: loss, optimizer, lr"),
        ("lr=1|2,lr=3|4", "names lr twice"),
        ("lr=1|two", "lr=two is not a number"),
        ("steps=1.5|2", "steps=1.5 is not a whole number"),
        ("nesterov=true|perhaps", "nesterov=perhaps is not true or false"),
        ("loss=hinge|nope", "unknown loss 'nope'"),
        ("schedule=nope|step", "unknown schedule 'nope'"),
        ("lr=1:0.1", "lr=1:0.1 is not a range from a number to a higher one"),
        ("lr=0:1:log", "lr=0:1:log has no logarithm at 0"),
        ("lr=nan:1", "is not a range"),
        ("lr=1:2:3", "got lr=1:2:3"),
        ("lr=0.1:1:log:log", "got lr=0.1:1:log:log"),
        ("loss=hinge:softmax", "got loss=hinge:softmax"),
    ],
)
def test_malformed_sweeps_are_refused(text, match):
    with pytest.raises(ValueError, match=match.replace("|", r"\|")):
        parse_sweep(text)


def test_grid_is_whole_unless_there_are_fewer_trials():
    sweep = parse_sweep("lr=0.1|0.2|0.3,l2=0|1")
    points = plan_trials(sweep, Settings())
    assert [(point.lr, point.l2) for point in points] == [
        (lr, l2) for lr in (0.1, 0.2, 0.3) for l2 in (0, 1)
    ]
    fewer = plan_trials(sweep, Settings(), 4)
    assert len(fewer) == len(set(fewer)) == 4
    assert set(fewer) < set(points)
    assert plan_trials(sweep, Settings(), 100) == points


def test_draws_lie_in_their_range_and_fill_it_evenly():
    sweep = parse_sweep("lr=1e-4:1:log,momentum=0.5:0.9,batch_size=8:64:log,l2=0|1")
    points = plan_trials(sweep, Settings(seed=5), 400)
    assert points == plan_trials(sweep, Settings(seed=5), 400)
    assert points != plan_trials(sweep, Settings(seed=6), 400)
    lr, momentum, sizes = (
        np.array([getattr(point, name) for point in points])
        for name in ("lr", "momentum", "batch_size")
    )
    for values, low, high in ((lr, 1e-4, 1), (momentum, 0.5, 0.9), (sizes, 8, 64)):
        assert low <= values.min() <= values.max() <= high
    assert sizes.dtype == np.int64
    # All four decades are equally likely.
    shares = np.histogram(np.log10(lr), bins=4, range=(-4, 0))[0] / len(lr)
    np.testing.assert_allclose(shares, 0.25, atol=0.08)
    np.testing.assert_allclose(np.mean([point.l2 for point in points]), 0.5, atol=0.1)
    assert len(plan_trials(sweep, Settings())) == 20


def test_sweep_does_not_depend_on_the_number_of_threads(prepared):
    points = [
        filled(prepared, lr=lr, loss=loss, restore_best=True, schedule="constant")
        for lr in (1e-3, 1e-2, 0.5)
        for loss in ("softmax", "hinge")
    ]
    one, three = (run_sweep(prepared, points, n_threads=n) for n in (1, 3))
    assert [trial.number for trial in one] == [trial.number for trial in three]
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a.result.W, b.result.W)
        np.testing.assert_array_equal(a.result.W, fit(prepared, a.settings).W)
        assert a.accuracy == a.result.history.column("validation_accuracy").max()
    assert any(trial.result.record.step < trial.result.n_steps for trial in one)
    shares = [trial.accuracy for trial in one]
    assert shares == sorted(shares, reverse=True)


def test_trials_are_ordered_by_accuracy_loss_and_number(prepared):
    result = fit(prepared, filled(prepared, epochs=1))

    def trial(number, share, loss):
        last = replace(result.history[-1], validation_accuracy=share, loss=loss)
        ended = replace(result, history=optim.History([last]), record=last)
        return Trial(number, Settings(), ended)

    trials = [
        Trial(0, Settings(), None, "diverged"),
        trial(1, 0.5, 1.0),
        trial(2, 0.7, 3.0),
        trial(3, 0.7, 2.0),
        trial(4, 0.7, 2.0),
    ]
    assert [t.number for t in sorted(trials, key=lambda t: t.order)] == [3, 4, 2, 1, 0]


def test_diverged_trial_comes_last_and_stops_no_other(prepared):
    given = {"schedule": "constant", "restore_best": True, "patience": 9}
    points = [filled(prepared, lr=lr, **given) for lr in (1e8, 1e-2)]
    trials = run_sweep(prepared, points)
    assert [trial.number for trial in trials] == [1, 0]
    assert trials[1].result is None
    assert "lower lr" in trials[1].failure


def test_sweep_without_validation_or_with_wrong_parameters_is_refused(prepared):
    with pytest.raises(ValueError, match="needs validation rows"):
        run_sweep(replace(prepared, X_validation=None), [filled(prepared)])
    bad = replace(filled(prepared), optimizer="lbfgs")
    with pytest.raises(ValueError, match="'lbfgs' takes no"):
        run_sweep(prepared, [filled(prepared), bad])


def test_interrupted_sweep_keeps_its_results(prepared, monkeypatch):
    calls = []

    def interrupted_wait(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wait(*arguments, **keywords)

    from fastloss.training import sweep as module

    wait = module.wait
    monkeypatch.setattr(module, "wait", interrupted_wait)
    points = [filled(prepared, lr=0.01 * k, epochs=300, batch_size=4) for k in range(1, 9)]
    trials = run_sweep(prepared, points, n_threads=1)
    assert len(trials) == len(points)
    assert not all(trial.complete for trial in trials)
    assert trials[0].result is not None


# The whole job


def test_outcome_of_a_job_holds_accuracies_settings_and_history(tmp_path):
    job = Job(Settings(epochs=4, batch_size=16), save_npz(tmp_path / "d.npz"), n_threads=1)
    outcome = job.run()
    assert outcome.complete
    assert set(outcome.accuracies) == {"train", "validation"}
    splits = outcome.splits
    assert outcome.accuracies["train"] == outcome.model.accuracy(splits.train.X, splits.train.y)
    assert outcome.accuracies["train"] > 0.6
    last = outcome.result.history[-1]
    assert outcome.accuracies["validation"] == last.validation_accuracy
    outcome.save(tmp_path / "history.json")
    record = json.loads((tmp_path / "history.json").read_text())
    assert record["complete"]
    assert record["accuracy"] == outcome.accuracies
    assert record["data"]["rows"] == {"train": 140, "validation": 20}
    assert set(record["history"]) == {f.name for f in fields(optim.Record)}
    np.testing.assert_array_equal(record["history"]["loss"], outcome.result.history.column("loss"))
    assert record["history"]["learning_rate"][0] is None
    assert record["settings"]["batch_size"] == 16
    assert record["settings"]["lr"] == outcome.settings.lr


def test_job_with_a_sweep_keeps_the_best_model(tmp_path):
    path = save_npz(tmp_path / "d.npz", n=400)
    job = Job(Settings(epochs=2), path, sweep="lr=1e-6|0.02|1e9,schedule=constant", n_threads=2)
    outcome = job.run()
    assert outcome.settings.lr == 0.02
    assert outcome.trials[-1].settings.lr == 1e9
    record = json.loads(outcome.to_json())
    assert [trial["settings"]["lr"] for trial in record["trials"]] == [0.02, 1e-6, 1e9]
    assert record["trials"][-1]["validation_accuracy"] is None
    assert "diverged" in record["trials"][-1]["failure"]
    with pytest.raises(RuntimeError, match="none of 2 trials has a result: diverged"):
        replace(job, sweep="lr=1e9|2e9,schedule=constant").run()


def test_resumed_job_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    path, checkpoint = save_npz(tmp_path / "d.npz"), tmp_path / "c.npz"
    whole = Job(Settings(epochs=6, batch_size=16, restore_best=True, patience=50), path)
    expected = whole.run()

    def stop_bar(total):
        from contextlib import nullcontext

        def update(message, done):
            if done >= total // 2:
                raise KeyboardInterrupt

        return nullcontext(update)

    first = replace(whole, checkpoint=checkpoint).run(stop_bar)
    assert not first.complete
    assert first.result.why == "interrupted"
    assert first.result.n_steps < expected.result.n_steps
    second = replace(whole, checkpoint=checkpoint, resume=True).run()
    np.testing.assert_array_equal(second.model.W, expected.model.W)
    other = save_npz(tmp_path / "other.npz", seed=9)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        replace(whole, data=other, checkpoint=checkpoint, resume=True).run()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sweep": "lr=1|2", "checkpoint": "c"}, "either sweep or checkpoint"),
        ({"n_trials": 3}, "trials need a sweep"),
        ({"resume": True}, "resume needs the checkpoint"),
        ({"n_threads": 0}, "threads must be >= 1"),
        ({"sweep": "nope=1"}, "unknown sweep parameter 'nope'"),
    ],
)
def test_contradictory_jobs_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Job(Settings(), **options)


def test_worst_pairs_are_the_largest_errors():
    confusion = np.array([[90, 5, 0], [7, 80, 0], [0, 5, 60]])
    assert worst_pairs(confusion) == [(1, 0, 7), (0, 1, 5), (2, 1, 5)]
    assert worst_pairs(confusion, 1) == [(1, 0, 7)]
    assert worst_pairs(np.eye(3, dtype=int)) == []


@pytest.mark.parametrize(
    ("test", "found"),
    [
        (data.synthetic(10, 5, 4), "5 features and 4 classes"),
        (data.synthetic(10, 6, 3), "6 features and 3 classes"),
        (data.synthetic(10, 6, 4, dtype=np.uint8), "6 pixels and 4 classes"),
    ],
)
def test_mismatched_test_rows_are_refused_before_the_training(test, found):
    expected = f"the rows for test have {found}, those to train on 6 features and 4 classes"
    with pytest.raises(ValueError, match=expected):
        Splits(data.synthetic(20, 6, 4), test=test)


def test_checkpoint_does_not_replace_the_data(tmp_path):
    np.savez(tmp_path / "d.npz", X=np.ones((4, 2)), y=np.arange(4) % 2)
    with pytest.raises(ValueError, match="are the same file"):
        Job(Settings(), data=tmp_path / "d.npz", checkpoint=tmp_path / "d.npz")
