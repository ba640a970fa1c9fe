"""A session of the demo: its numbers against `loss_and_grad`, its messages, and its jobs."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from threading import Event

import numpy as np
import pytest

import fastloss
from fastloss.demo import costs, processes, studies
from fastloss.demo.jobs import Job, Jobs
from fastloss.demo.messages import MessageError
from fastloss.demo.session import Session
from fastloss.demo.state import BACKENDS, GRADIENTS, LOSSES, OPTIMIZERS, State

SECONDS = 120.0


class Tab:
    """A session with its answers, as a page would get them."""

    def __init__(self, **keywords) -> None:
        self.answers = []
        self.session = Session(self._keep, **keywords)
        self._n = 0

    def _keep(self, answer) -> None:
        # As on the wire: what JSON lacks is an error here.
        self.answers.append(json.loads(json.dumps(answer, allow_nan=False)))

    def ask(self, do, **fields):
        """Return the first answer to a message."""
        self._n += 1
        self.session.receive({"id": self._n, "do": do, **fields})
        return self.wait(lambda answer: answer["id"] == self._n)

    def view(self, do, **fields):
        return self.ask(do, **fields)["view"]

    def wait(self, is_wanted):
        """Return the first answer of a kind."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for answer in self.answers:
                if is_wanted(answer):
                    return answer
            time.sleep(0.002)
        raise AssertionError(f"no such answer in {self.answers!r}")

    def on_backend(self, backend):
        """Choose a backend, and return the view once it is ready."""
        view = self.view("set", backend=backend)
        if view["preparing"]:
            assert view["backend"] == backend
            view = self.wait(lambda answer: answer["id"] is None)["view"]
        assert not view["preparing"]
        return view


@pytest.fixture
def tab():
    tab = Tab()
    yield tab
    tab.session.close()


def arrays_of(view):
    """Return X, y and W of a view, in the layout of `loss_and_grad`."""
    X = np.array([[point["x"], point["y"]] for point in view["points"]])
    y = np.array([point["class"] for point in view["points"]])
    return X, y, np.vstack([np.transpose(view["W"]), view["b"]])


def check_numbers(view):
    """Compare all readings of a view with the library on the same state."""
    X, y, W = arrays_of(view)
    settings = {"loss": view["loss"], "intercept": True}
    total, dW = fastloss.loss_and_grad(W, X, y, l2=view["l2"], backend="naive", **settings)
    data_loss, _ = fastloss.loss_and_grad(W, X, y, backend="naive", **settings)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(view["total"], total, **close)
    np.testing.assert_allclose(view["data_loss"], data_loss, **close)
    np.testing.assert_allclose(view["penalty"], view["l2"] * np.square(W[:2]).sum(), **close)
    np.testing.assert_allclose(np.transpose(view["dW"]), dW[:2], **close)
    np.testing.assert_allclose(view["db"], dW[2], **close)
    assert view["history"][-1] == [view["n_updates"], view["total"]]
    for point, x, label in zip(view["points"], X, y, strict=True):
        scores = x @ W[:2] + W[2]
        np.testing.assert_allclose(point["scores"], scores, **close)
        loss, _ = fastloss.loss_and_grad(W, x[None], [label], backend="naive", **settings)
        np.testing.assert_allclose(point["loss"], loss, **close)
        assert point["right"] == (scores.argmax() == label)
    right = [point["right"] for point in view["points"]]
    np.testing.assert_allclose(view["accuracy"], np.mean(right), **close)


# --- readings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_readings_agree_with_the_library_after_each_message(tab, loss):
    check_numbers(tab.ask("open")["view"])
    check_numbers(tab.view("set", loss=loss, l2=0.37))
    check_numbers(tab.view("move", point=4, x=0.123, y=-0.7))
    check_numbers(tab.view("add", x=-0.9, y=0.9, **{"class": 2}))
    check_numbers(tab.view("label", point=0, **{"class": 1}))
    check_numbers(tab.view("weight", column=2, value=-1.5, **{"class": 1}))
    check_numbers(tab.view("update"))
    check_numbers(tab.view("randomise"))
    check_numbers(tab.view("delete", point=2))
    check_numbers(tab.view("weight", column=0, value=1e6, **{"class": 0}))


def test_gradient_of_the_penalty_is_twice_the_weights(tab):
    without, with_penalty = tab.view("set", l2=0), tab.view("set", l2=3)
    difference = np.subtract(with_penalty["dW"], without["dW"])
    np.testing.assert_allclose(difference, 2 * 3 * np.array(without["W"]), rtol=1e-12)
    assert with_penalty["db"] == without["db"]


def test_gradient_arrows_point_along_the_step(tab):
    view = tab.view("set", loss="softmax")
    for row, arrow in zip(view["dW"], view["gradient_arrows"], strict=True):
        direction = np.subtract(arrow[1], arrow[0])
        cosine = -np.dot(direction, row) / np.linalg.norm(direction) / np.linalg.norm(row)
        assert cosine == pytest.approx(1.0)


def test_softmax_is_finite_at_huge_scores(tab):
    tab.view("set", loss="softmax")
    check_numbers(tab.view("weight", column=1, value=-1e6, **{"class": 2}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_shows_the_same_numbers(tab, backend):
    tab.view("set", loss="softmax")
    view = tab.on_backend(backend)
    assert view["backend"] == backend
    check_numbers(view)
    check_numbers(tab.view("update"))


def test_open_describes_choices_and_limits(tab):
    setup = tab.ask("open")["setup"]
    assert list(setup["choices"]["loss"]) == list(LOSSES)
    assert list(setup["choices"]["backend"]) == list(fastloss.available_backends())
    assert set(LOSSES) <= set(fastloss.available_losses())
    assert setup["limits"]["lr"] == [0.0005, 5.0]
    assert setup["limits"]["updates"] == [1, 200]


# --- updates --------------------------------------------------------------------------------------


def test_an_update_goes_along_minus_the_gradient(tab):
    before = tab.view("set", lr=0.25)
    after = tab.view("update")
    np.testing.assert_allclose(
        after["W"], np.subtract(before["W"], 0.25 * np.array(before["dW"])), rtol=1e-12
    )
    np.testing.assert_allclose(
        after["b"], np.subtract(before["b"], 0.25 * np.array(before["db"])), rtol=1e-12
    )
    assert (after["n_updates"], after["evaluations"]) == (1, 1)
    assert after["history"] == [[0, before["total"]], [1, after["total"]]]


@pytest.mark.parametrize("kind", GRADIENTS)
def test_each_kind_of_gradient_makes_the_same_update(tab, kind):
    tab.view("set", loss="softmax")
    analytic = tab.view("update")
    tab.view("reset")
    tab.view("set", loss="softmax", gradient=kind)
    view = tab.view("update")
    np.testing.assert_allclose(view["W"], analytic["W"], atol=1e-8)
    assert view["evaluations"] == (1 if kind == "analytic" else 18)
    assert view["seconds"] > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_lowers_the_loss(tab, optimizer):
    first = tab.view("set", optimizer=optimizer, lr=0.02)
    tab.view("run")
    for _ in range(100):
        view = tab.ask("seen")["view"]
        assert view["running"]
    assert view["n_updates"] == 100
    assert view["total"] < 0.9 * first["total"]
    check_numbers(view)


def test_momentum_adds_a_part_of_the_last_step(tab):
    start = tab.view("set", optimizer="momentum", lr=0.01)
    first = tab.view("update")
    second = tab.view("update")
    step = np.subtract(first["W"], start["W"])
    expected = first["W"] + 0.9 * step - 0.01 * np.array(first["dW"])
    np.testing.assert_allclose(second["W"], expected, rtol=1e-12)


def test_sgd_visits_each_point_once_in_an_epoch(tab):
    tab.view("set", optimizer="sgd", l2=0, lr=0.5)
    moved = []
    for _ in range(9):
        before = tab.view("stop")
        after = tab.view("update")
        X, y, W = arrays_of(before)
        step = (W - arrays_of(after)[2]) / 0.5
        gradients = [
            fastloss.loss_and_grad(W, X[[i]], y[[i]], loss="hinge", intercept=True)[1]
            for i in range(9)
        ]
        moved.append({i for i in range(9) if np.allclose(step, gradients[i], atol=1e-12)})
    assert all(moved)
    assert set().union(*moved) == set(range(9))


def test_random_local_search_never_raises_the_loss(tab):
    view = tab.view("set", optimizer="random_local_search", lr=0.5)
    for _ in range(40):
        after = tab.view("update")
        assert after["total"] <= view["total"]
        view = after
    assert view["evaluations"] == 2


def test_a_divergent_run_stops_before_the_weights_overflow(tab):
    tab.view("set", lr=5, l2=100)
    tab.view("run")
    for _ in range(20):
        answer = tab.ask("seen")
        if "error" in answer:
            break
    assert "the loss diverges" in answer["error"]
    assert not answer["view"]["running"]
    check_numbers(answer["view"])


def test_stop_ends_the_updates(tab):
    tab.view("run")
    tab.view("seen")
    assert tab.view("stop")["running"] is False
    n_answers = len(tab.answers)
    tab.session.receive({"id": 0, "do": "seen"})
    assert len(tab.answers) == n_answers


def test_reset_returns_to_the_state_of_the_session():
    tab = Tab(address="loss=softmax&l2=2")
    tab.view("update")
    view = tab.view("reset")
    assert (view["loss"], view["l2"], view["n_updates"]) == ("softmax", 2.0, 0)
    assert view["address"] == "loss=softmax&l2=2"


def test_open_with_an_address_takes_its_state(tab):
    sent = tab.view("randomise")["address"]
    assert tab.ask("open")["view"]["address"] == sent
    other = Tab()
    assert other.ask("open", address="#" + sent)["view"]["points"] == tab.view("stop")["points"]
    answer = other.ask("open", address="l2=much")
    assert "l2" in answer["error"]
    assert answer["view"]["address"] == ""


def test_a_session_refuses_a_damaged_first_address():
    with pytest.raises(MessageError, match="colour"):
        Session(print, address="colour=red")


# --- messages that are wrong ----------------------------------------------------------------------


def test_thousands_of_malformed_messages_leave_the_session_right(tab):
    before = tab.view("update")
    rng = random.Random(0)
    junk = [None, True, -1, 10**30, 1e308, float("nan"), "", "x" * 99, [], [0, 1], {}, [[]]]
    names = (
        "point",
        "x",
        "y",
        "class",
        "column",
        "value",
        "a",
        "b",
        "radius",
        "updates",
        "address",
    )
    # "open" would reset the state, as it should.
    actions = ("move", "add", "delete", "label", "weight", "set", "surface", "compare", "cancel")
    n_answers = len(tab.answers)
    for n in range(10_000):
        message = {"id": n, "do": rng.choice(actions)}
        message |= {name: rng.choice(junk) for name in rng.sample(names, rng.randint(0, 6))}
        # Numbers that would be right are not malformed.
        message |= {"point": "0", "class": None, "a": 0}
        text = json.dumps(message)
        tab.session.receive(text[: rng.randint(0, len(text))] if n % 3 else text)
    answers = tab.answers[n_answers:]
    assert len(answers) == 10_000
    assert all(set(answer) == {"id", "error"} for answer in answers)
    assert {len(answer["error"]) < 400 for answer in answers} == {True}
    after = tab.view("stop")
    assert {**after, "running": False} == before


@pytest.mark.parametrize("message", [None, 3, "", "[]", [], {}, {"do": None}, {"do": "__class__"}])
def test_a_message_of_another_kind_is_answered_with_an_error(tab, message):
    tab.session.receive(message)
    assert tab.answers[-1]["id"] is None
    assert tab.answers[-1]["error"]


# --- studies --------------------------------------------------------------------------------------


def test_check_shows_both_gradients_and_a_verdict(tab):
    view = tab.view("set", loss="squared_hinge")
    check = tab.ask("check")["check"]
    assert check["passed"]
    assert check["max_relative_error"] < 1e-7
    gradient = np.hstack([view["dW"], np.transpose([view["db"]])])
    for entry in check["entries"]:
        expected = gradient[entry["class"], entry["column"]]
        np.testing.assert_allclose(entry["analytic"], expected, rtol=1e-12)
        np.testing.assert_allclose(entry["numerical"], expected, atol=1e-7)
    places = {tuple(r["place"]) for r in check["records"] if r["part"] == "data" and r["place"]}
    assert places == {(k, column) for k in range(3) for column in range(3)}


def test_surface_holds_the_losses_of_the_plane(tab):
    tab.view("run")
    for _ in range(3):
        view = tab.view("seen")
    surface = tab.ask("surface", a=[1, 0], b=[2, 2], radius=2.5)["surface"]
    X, y, W = arrays_of(view)
    for i, j in [(0, 0), (40, 7), (20, 20)]:
        W[0, 1], W[2, 2] = surface["a_values"][i], surface["b_values"][j]
        total, _ = fastloss.loss_and_grad(W, X, y, loss="hinge", l2=0.1, intercept=True)
        np.testing.assert_allclose(surface["losses"][i][j], total, rtol=1e-12)
    assert surface["a_values"][-1] - surface["a_values"][0] == pytest.approx(5.0)
    assert surface["path"][0] == [2.0, -0.5]
    assert surface["path"][-1] == [view["W"][1][0], view["b"][2]]
    assert len(surface["path"]) == 4
    assert "two different" in tab.ask("surface", a=[1, 0], b=[1, 0], radius=1)["error"]


def test_compare_follows_every_loss_from_the_same_start(tab):
    tab.view("set", loss="softmax", lr=0.2)
    curves = tab.ask("compare", updates=3)["compare"]["curves"]
    assert [curve["loss"] for curve in curves] == list(LOSSES)
    for curve in curves:
        tab.view("reset")
        view = tab.view("set", loss=curve["loss"], lr=0.2)
        for total, accuracy in zip(curve["totals"], curve["accuracies"], strict=True):
            np.testing.assert_allclose([view["total"], view["accuracy"]], [total, accuracy])
            last, view = view, tab.view("update")
        assert curve["error"] is None
        np.testing.assert_allclose(np.vstack(curve["regions"]), np.vstack(last["regions"]))


def test_compare_says_which_loss_diverges(tab):
    tab.view("set", lr=5, l2=10)
    curves = tab.ask("compare", updates=50)["compare"]["curves"]
    assert all("diverges" in curve["error"] and len(curve["totals"]) < 51 for curve in curves)


@pytest.mark.parametrize("checks", [True, False])
def test_a_job_can_be_cancelled_and_replaced(checks):
    answers, went_on, began, go_on = [], [], Event(), Event()

    def work(check):
        began.set()
        go_on.wait(SECONDS)
        if checks:
            check()
        went_on.append(True)
        return "late"

    jobs = Jobs(answers.append)
    jobs.start(Job("slow", 1, work))
    assert began.wait(SECONDS)
    jobs.start(Job("other", 2, lambda check: "cancelled before it began"))
    jobs.cancel("other")
    jobs.start(Job("slow", 3, lambda check: "new"))
    go_on.set()
    jobs.start(Job("last", 4, lambda check: 1 / 0))
    end = time.monotonic() + SECONDS
    while len(answers) < 2 and time.monotonic() < end:
        time.sleep(0.002)
    jobs.close()
    assert bool(went_on) != checks
    assert answers == [
        {"id": 3, "slow": "new"},
        {"id": 4, "error": "last failed: ZeroDivisionError: division by zero"},
    ]


def test_studies_stop_when_they_are_told_to():
    class StopError(Exception):
        pass

    def stop():
        raise StopError

    message = studies.Message({"updates": 5, "a": [0, 0], "b": [0, 1], "radius": 1})
    state = State()
    for study in (studies.compare, studies.surface):
        with pytest.raises(StopError):
            study(state, state.objective(), message)(stop)


# --- costs ----------------------------------------------------------------------------------------


def test_cost_problem_has_the_loss_of_the_page():
    state = State()
    state.set(studies.Message({"rows": 100, "features": 7, "loss": "softmax"}))
    objective, W = costs.Task.of(state, 1.0).objective()
    assert objective.X.shape == (99, 7)
    np.testing.assert_allclose(objective.loss(W), state.objective().loss(state.W), rtol=1e-12)


def test_costs_count_and_project_evaluations():
    state = State()
    state.set(studies.Message({"rows": 900, "features": 50}))
    tables = []
    # The naive loss takes about 0.05 s on all rows, so it gets some of them.
    costs.Measurement(costs.Task.of(state, 0.02), tables.append).run()
    table = tables[-1]
    assert (table["rows"], table["features"], table["parameters"]) == (900, 50, 153)
    assert [each["running"] for each in tables] == [True] * (len(tables) - 1) + [False]
    entries = {(entry["gradient"], entry["backend"]): entry for entry in table["entries"]}
    assert len(entries) == 9
    for (gradient, backend), entry in entries.items():
        assert entry["error"] is None
        assert entry["needed"] == (1 if gradient == "analytic" else 2 * 153)
        assert 1 <= entry["done"] <= entry["needed"]
        whole = entry["done"] == entry["needed"] and entry["rows"] == 900
        assert entry["status"] == ("done" if whole else "projected")
        assert (entry["rows"] == 900) or backend == "naive"
        assert entry["projected"] >= entry["seconds"] > 0
    slow = entries["per_element", "naive"]
    assert slow["rows"] < 900
    assert slow["done"] < slow["needed"]
    share = slow["done"] / slow["needed"] * slow["rows"] / 900
    assert slow["projected"] == pytest.approx(slow["seconds"] / share, rel=0.2)


def test_a_measurement_ends_with_the_process_that_started_it():
    state = State()
    state.set(studies.Message({"rows": 10_000, "features": 3000}))
    process = processes.start(costs.main, asdict(costs.Task.of(state, 60.0)))
    with process:
        assert json.loads(process.stdout.readline())["running"]
        process.stdin.close()  # as when the other process is killed
        assert process.wait(SECONDS) == 1


def test_costs_can_be_measured_and_cancelled(tab):
    tab.view("set", rows=9, features=2)
    tab.ask("cost", seconds=0.01)
    last = tab.wait(lambda answer: not answer.get("cost", {"running": True})["running"])
    assert {entry["status"] for entry in last["cost"]["entries"]} <= {"done", "projected"}

    tab.view("set", rows=10_000, features=3000)
    tab.session.receive({"id": "long", "do": "cost", "seconds": 60})
    other = Tab()
    assert "another tab" in other.ask("cost")["error"]
    process = tab.session._cost._process
    start = time.monotonic()
    assert tab.ask("cancel", what="cost")["cancelled"] == "cost"
    assert process.poll() is not None
    assert time.monotonic() - start < 5
    # The turn is free again; closing a tab ends its measurement.
    assert "cost" in other.ask("cost", seconds=60)
    process = other.session._cost._process
    other.session.close()
    assert process.poll() is not None
