"""Other libraries as contenders: who takes part, who is skipped and why, and what they compute."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle import assert_close, make_data

import fastloss
from fastloss.benchmark import Results, Settings, findings, peers, report
from fastloss.benchmark.peers import PEERS, Peer, PeerTask
from fastloss.benchmark.plan import Plan
from fastloss.benchmark.plots import save_all
from fastloss.benchmark.results import Cell, Timing
from fastloss.benchmark.tasks import Inputs
from fastloss.benchmark.worker import Worker, WorkerError

FAST = Settings(max_rounds=3, cell_seconds=0.12, measure_ceilings=False, first_calls=False)

FAKES = """
import os
import numpy as np

def right(problem):
    X, y, W = problem.X, problem.y, problem.W
    def call():
        scores = X @ W.T
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(y))
        loss = -np.log(p[rows, y]).mean()
        p[rows, y] -= 1
        return loss, p.T @ X / len(y)
    return call

def wrong(problem):
    call = right(problem)
    return lambda: (call()[0], 2 * call()[1])

def fails(problem):
    raise RuntimeError("no compiler found\\nand a page of advice")

def ends(problem):
    os._exit(3)
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Peers of NumPy alone that are right, wrong, fail, and end their process."""
    (tmp_path / "fake_peer_module.py").write_text(FAKES)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("fake_peer_module")
    names = ("right", "wrong", "fails", "ends")
    yield tuple(Peer(name, ("numpy",), ("softmax",), getattr(module, name)) for name in names)
    del sys.modules["fake_peer_module"]


def measured_with(some_peers: tuple[Peer, ...], **arguments: object) -> Results:
    plan = Plan.make(
        **{"losses": ["softmax"], "backends": ["numpy"], "sizes": [(60, 8, 3)], **arguments},
        peers=True,
        settings=FAST,
    )
    plan.peers = some_peers
    return plan.run()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"name": ""}, ValueError, "needs a name"),
        ({"modules": ()}, ValueError, "needs a name, modules"),
        ({"losses": ()}, ValueError, "needs a name, modules and losses"),
        ({"losses": ("nope",)}, ValueError, "unknown loss 'nope'; known: 'softmax'"),
        ({"bind": "peers:bind_torch"}, TypeError, "bind of peer 'PyTorch' must be a function"),
    ],
)
def test_a_record_that_is_none_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message):
        replace(PEERS[0], **changes)


def test_names_of_peers_are_their_own():
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    assert not {*names} & {*fastloss.available_backends(), "auto"}


def test_a_peer_that_is_not_installed_is_skipped_and_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    results = measured_with(PEERS, losses=["softmax", "crammer_singer"])
    softmax, other = results.cells
    assert [timing.contender for timing in softmax.timings] == ["numpy"]
    assert softmax.skipped["JAX + optax"].startswith("jax and optax not installed")
    assert other.skipped["PyTorch"] == "does not compute crammer_singer"
    text = report.skipped_table(results).markdown()
    assert "| scikit-learn | softmax | sklearn not installed (" in text
    assert "Skipped" in [table.title for table in report.all_tables(results)]
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_looking_for_peers_imports_none_of_them(run_python):
    run_python("""
        import sys
        from fastloss.benchmark.plan import Plan
        for peer in Plan.make(peers=True).peers:
            peer.unavailable("softmax")
        assert not {"torch", "jax", "optax", "sklearn"} & set(sys.modules)
    """)


def test_with_peers_a_plan_leaves_out_what_they_cannot_be_compared_with():
    plan = Plan.make(peers=True)
    assert plan.backends == ("numpy", "numba", "fused", "auto")
    assert plan.losses == ["softmax", "hinge", "squared_hinge"]
    assert plan.feature_counts == ()
    assert plan.peers == PEERS
    assert Plan.make().peers == ()
    assert Plan.make(peers=True, backends=["naive"], losses=["one_vs_all"]).backends == ("naive",)


def test_a_peer_that_is_wrong_or_fails_is_reported_and_not_timed(fakes, tmp_path):
    results = measured_with(fakes, backends=["numpy", "auto"])
    (cell,) = results.cells
    kinds = {timing.contender: timing.kind for timing in cell.timings}
    assert kinds == {"numpy": "backend", "auto": "backend", "right": "peer"}
    assert min(cell.timing("right").seconds) > 0
    assert cell.timing("right").first_call_cold > 0
    assert cell.skipped["wrong"].startswith("wrong is wrong: dW[")
    assert cell.skipped["fails"] == "RuntimeError: no compiler found"
    assert cell.skipped["ends"] == "the process of a contender ended with code 3"
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    titles = [table.title for table in report.all_tables(results)]
    assert titles[-3:-1] == ["fastloss against the best peer", "Skipped"]
    assert "A peer's is of the whole problem" in report.first_calls_table(results).notes[-1]
    assert [path.name for path in save_all(results, tmp_path)] == [
        "peers.png",
        "peers.svg",
        "peers-dark.png",
        "peers-dark.svg",
    ]


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_peers_are_handed_float32_where_fastloss_converts(fakes, dtype):
    (cell,) = measured_with(fakes[:1], dtype=dtype).cells
    assert cell.timing("numpy").note == ""
    assert cell.timing("right").note == "handed a float32 copy of X, made beforehand"
    table = report.backends_table(Results("", "", {}, cells=[cell]))
    assert "right: handed a float32 copy of X, made beforehand." in table.notes


def cell_of(ours: float, theirs: float) -> Cell:
    """Backends, a candidate and peers: the fastest take these seconds, or 2 % more or less."""

    rounds = np.random.default_rng(0).permutation(np.linspace(0.98, 1.02, 9))

    def around(value: float) -> list[float]:
        return (value * rounds).tolist()

    timings = [
        Timing("numpy", around(3 * ours)),
        Timing("fused", around(ours)),
        Timing("mine", around(ours / 9), kind="candidate"),
        Timing("slow", around(2 * theirs), kind="peer"),
        Timing("quick", around(theirs), kind="peer"),
    ]
    return Cell("softmax", 10, 20, 3, "float32", timings, limit_seconds=ours / 4)


def test_wins_and_losses_are_said_as_plainly():
    cells = [cell_of(1.0, 2.0), cell_of(2.0, 1.0), cell_of(1.0, 1.0)]
    results = Results("", "", {}, cells=cells)
    rows = report.peers_table(results).rows
    assert [row[5] for row in rows] == ["faster", "slower", "no different"]
    assert rows[0][2:4] == ("fused 1 s", "quick 2 s")
    assert rows[0][4].startswith("2.00 [")
    assert rows[1][4].startswith("0.50 [")
    assert rows[0][6:] == ("-", "25 %")
    assert (
        findings.verdict(Timing("ours", [1.0]), Timing("theirs", [2.0])) == "not decided by 1 round"
    )
    over_peer = [row[6] for row in report.backends_table(results).rows]
    assert over_peer[4] == "1"
    assert over_peer[3].startswith("0.50 [")


def test_losses_can_be_seen_in_the_plot(tmp_path):
    cells = [cell_of(1.0, 2.0), cell_of(2.0, 1.0)]
    save_all(Results("", "", {}, cells=cells), tmp_path)
    svg = (tmp_path / "peers.svg").read_text()
    for label in ("2.00: fused against quick", "0.50: fused against quick", "10 x 20 x 3 float32"):
        assert label in svg


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """A process for each peer, started when first asked for."""
    cache = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("torch")),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    started: dict[str, Worker] = {}

    def worker(peer: Peer) -> Worker:
        if peer.name not in started:
            started[peer.name] = Worker(1, cache)
        return started[peer.name]

    yield worker
    for one in started.values():
        one.close()


@pytest.mark.deep
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("peer", "loss"),
    [pytest.param(p, loss, id=f"{p.name}-{loss}") for p in PEERS for loss in p.losses],
)
def test_a_peer_computes_the_losses_it_claims(peer, loss, dtype, workers, tmp_path: Path):
    reason = peer.unavailable(loss)
    if reason is not None:
        pytest.skip(reason)
    data = make_data(61, 13, 5, dtype, dtype)
    inputs = Inputs.save(tmp_path, data.X, data.y, data.W)
    try:
        _, result = workers(peer).prepare(PeerTask(inputs, loss, peer, n_threads=1))
    except WorkerError as error:
        if "InvalidCxxCompiler" in str(error):
            pytest.skip("torch.compile needs a C++ compiler")
        raise
    assert result[1].dtype == data.W.dtype
    expected = fastloss.loss_and_grad(data.W, data.X, data.y, loss, backend="numpy")
    assert_close(result, expected, dtype)
