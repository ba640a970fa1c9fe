"""The server of the demo: what it serves, to whom, how fast, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from demo_page import SECONDS, served
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import fastloss
from fastloss.cli import app
from fastloss.demo import server
from fastloss.demo.address import state_of


@pytest.fixture(scope="module")
def port():
    with served() as port:
        yield port


def open_tab(port, **keywords):
    here = f"127.0.0.1:{port}"
    return connect(f"ws://{here}/ws", **{"origin": f"http://{here}", **keywords})


def ask(tab, **message):
    tab.send(json.dumps({"id": 1, **message}))
    return json.loads(tab.recv(timeout=SECONDS))


def get(port, path="/", **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


# --- who may connect ------------------------------------------------------------------------------


def test_page_and_its_files_name_no_other_host(port):
    status, headers, page = get(port)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert files
    for file in files:
        status, _, text = get(port, "/" + file)
        assert status == 200, file
        # Names of XML vocabularies are no addresses.
        hosts = set(re.findall(r"(?:https?|wss?)://([\w.]+)", text)) - {"www.w3.org"}
        assert not hosts, file


def test_other_paths_are_not_served(port):
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/state.py"):
        assert get(port, path)[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1", 200), ("[::1]", 200), ("evil.example", 403), ("[", 403)],
)
def test_a_foreign_host_name_is_refused(port, host, status):
    assert get(port, Host=f"{host}:{port}")[0] == status


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"]
)
def test_a_page_of_another_site_cannot_connect(port, origin):
    with pytest.raises(InvalidStatus) as caught, open_tab(port, origin=origin):
        pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(("host", "status"), [("demo.example:80", 200), ("evil.example", 403)])
def test_a_server_on_a_named_host_answers_to_that_name(host, status):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "HEAD",
        "path": "/",
        "headers": [(b"host", host.encode())],
    }
    asyncio.run(server.app("Demo.example")(scope, None, send))
    assert sent[0]["status"] == status


# --- tabs -----------------------------------------------------------------------------------------


def test_ten_tabs_at_once_have_their_own_state(port):
    def use(n, tab):
        view = ask(tab, do="set", loss="softmax", l2=n / 10)["view"]
        for step in range(10):
            place = {"point": n % 9, "x": n / 10, "y": step / 20}
            view = ask(tab, do="move", **place)["view"]
        return view

    with ExitStack() as stack:
        tabs = [stack.enter_context(open_tab(port)) for _ in range(10)]
        with ThreadPoolExecutor(10) as pool:
            views = list(pool.map(use, range(10), tabs))
    for n, view in enumerate(views):
        point = view["points"][n % 9]
        assert (view["l2"], point["x"], point["y"]) == (n / 10, n / 10, 0.45)
        state = state_of(view["address"])
        total, _ = fastloss.loss_and_grad(
            state.W, state.points, state.labels, l2=n / 10, intercept=True
        )
        np.testing.assert_allclose(view["total"], total, rtol=1e-12)


def test_a_malformed_message_is_an_error_on_its_own_tab(port):
    with open_tab(port) as good, open_tab(port) as bad:
        before = ask(good, do="open")["view"]
        for message in ("{", "null", '{"do": "move"}', b"\xff\x00", "x" * 40_000):
            bad.send(message)
            assert "error" in json.loads(bad.recv(timeout=SECONDS))
        bad.send("x" * 100_000)  # too large to read: its connection is closed
        with pytest.raises(ConnectionClosed):
            bad.recv(timeout=SECONDS)
        assert ask(good, do="stop")["view"] == before


def test_a_tab_can_send_without_reading(port):
    with open_tab(port) as tab:
        for n in range(500):
            tab.send(json.dumps({"id": n, "do": "move", "point": 0, "x": 0, "y": n / 500}))
        ids = [json.loads(tab.recv(timeout=SECONDS))["id"] for _ in range(500)]
    assert ids == list(range(500))


def test_a_tab_that_disappears_ends_its_measurement(port):
    with open_tab(port) as tab, open_tab(port) as other:
        ask(tab, do="set", rows=10_000, features=3000)
        assert "cost" in ask(tab, do="cost", seconds=60)
        assert "another tab" in ask(other, do="cost")["error"]
        tab.socket.shutdown(socket.SHUT_RDWR)  # no goodbye, as when a computer sleeps
        end = time.monotonic() + SECONDS
        while "error" in (answer := ask(other, do="cost", seconds=0.01)):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert "cost" in answer


# --- ports, and the end ---------------------------------------------------------------------------


def test_a_taken_default_port_means_the_next_one():
    with server.listen("127.0.0.1", None) as first, server.listen("127.0.0.1", None) as second:
        ports = [each.getsockname()[1] for each in (first, second)]
    assert server.DEFAULT_PORT <= ports[0] < ports[1] < server.DEFAULT_PORT + 20


def test_a_taken_port_that_was_asked_for_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["demo", "--no-browser", "--port", str(port)])
    assert result.exit_code == 2
    assert f"port {port} of 127.0.0.1 is taken" in result.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "no host"])  # the first is for documentation only
def test_an_address_of_another_computer_is_an_error(host):
    result = CliRunner().invoke(app, ["demo", "--no-browser", "--host", host])
    assert result.exit_code == 2
    assert f"cannot listen on port 8765 of {host}: " in result.stderr


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fastloss.demo.server")
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert "the demo needs uvicorn; install it with pip install '.[demo]'" in result.stderr


def test_page_address_can_be_opened_on_this_computer():
    with server.listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        assert server.page_address("0.0.0.0", listener) == f"http://127.0.0.1:{port}/"
        assert server.page_address("::1", listener) == f"http://[::1]:{port}/"


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds child processes in /proc")
def test_ctrl_c_ends_server_tabs_and_measurement_at_once(start_python):
    process = start_python(
        """
        from fastloss.demo.server import serve
        serve(port=0, open_browser=False)
        """
    )
    port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
    with open_tab(port) as idle, open_tab(port) as busy:
        ask(idle, do="run")
        ask(busy, do="set", rows=10_000, features=3000)
        assert "cost" in ask(busy, do="cost", seconds=60)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
        assert time.monotonic() - start < 10
    end = time.monotonic() + 10
    while Path(f"/proc/{children[0]}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{children[0]}").exists()
    assert process.stderr.read() == ""
