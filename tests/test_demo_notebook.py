"""The demo as a widget in a page: with a model that stands in for a notebook, and in JupyterLab."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import demo_browser
import numpy as np
import pytest

if reason := demo_browser.why_not():
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip("anywidget", reason="the extra demo is not installed")
pytest.importorskip("uvicorn", reason="the extra demo is not installed")

from demo_page import SECONDS, checked, served, snapshot, until

from fastloss.demo.widget import DemoWidget

# What a notebook does: two views of one model, each in an element of its own.
_TWO_VIEWS = """async () => {
  const { default: widget } = await import("/widget.js");
  document.body.replaceChildren();
  const listeners = new Set();
  const exchange = async (message) => {
    for (const answer of await window.toPython(message)) for (const each of [...listeners]) each(answer);
  };
  const model = {
    send: (message) => void exchange(message),
    on: (name, listener) => name === "msg:custom" && listeners.add(listener),
    off: (name, listener) => listeners.delete(listener),
  };
  setInterval(() => exchange(null), 50);
  for (const id of ["one", "two"]) {
    const el = document.body.appendChild(document.createElement("div"));
    el.id = id;
    window[`close_${id}`] = widget.render({ model, el });
  }
}"""  # noqa: E501
_CELL = "from fastloss.demo.widget import DemoWidget\nwidget = DemoWidget('l2=0.5')\nwidget"


class Recorded(DemoWidget):
    """A widget that keeps what it sends, until the page fetches it."""

    def send(self, content, buffers=None):
        self.__dict__.setdefault("answers", []).append(content)

    def exchange(self, message):
        if message is not None:
            self._handle_custom_msg(message, [])
        answers, self.__dict__["answers"] = self.__dict__.get("answers", []), []
        return answers


@pytest.fixture(scope="module")
def browser():
    with demo_browser.browser() as opened:
        yield opened


def test_views_of_a_widget_show_the_numbers_of_its_state(browser):
    widget = Recorded("l2=0.5")
    with served() as port:
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.expose_function("toPython", widget.exchange)
        module = {"body": str(widget._esm), "content_type": "text/javascript"}
        page.route("**/widget.js", lambda route: route.fulfill(**module))
        page.goto(f"http://127.0.0.1:{port}/")
        page.evaluate(_TWO_VIEWS)
        one, two = page.locator("#one"), page.locator("#two")
        for view in (one, two):
            view.locator(".marker").first.wait_for()
        assert checked(one)["settings"]["l2"] == 0.5
        box = one.locator(".marker").nth(1).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] - 150, box["y"] + 20)
        shown = until(one, lambda shown: shown["points"][1][0] < 0.5)
        page.mouse.up()
        assert checked(two)["points"] == shown["points"] == checked(one)["points"]
        one.get_by_role("button", name="Run", exact=True).click()
        until(two, lambda shown: shown["readings"]["n_updates"] > 5)
        two.get_by_role("button", name="Stop").click()
        until(one, lambda shown: not shown["running"])
        assert page.evaluate("location.hash") == ""
        page.evaluate("close_one()")
        assert one.locator("*").count() == 0
        two.get_by_role("button", name="Reset").click()
        shown = until(two, lambda shown: shown["readings"]["n_updates"] == 0)
        page.close()
    widget.close()


@pytest.fixture
def notebook(tmp_path):
    """Serve JupyterLab on a folder with a notebook of one cell; return the notebook's address."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "demo",
        "metadata": {},
        "outputs": [],
        "source": _CELL,
    }
    kernel = {"name": "python3", "display_name": "Python 3"}
    content = {
        "cells": [cell],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "demo.ipynb").write_text(json.dumps(content))
    # Nothing of the user's own settings, and nothing left behind.
    names = ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS")
    own = {f"{name}_DIR": str(tmp_path / name) for name in (*names, "JUPYTERLAB_WORKSPACES")}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**os.environ, **own, "IPYTHONDIR": str(tmp_path / "ipython")},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", process, log)
            yield f"http://127.0.0.1:{port}/lab/tree/demo.ipynb"
        finally:
            process.terminate()


def _wait_for(url, process, log):
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            urlopen(url, timeout=SECONDS).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.mark.deep
def test_widget_follows_a_drag_in_jupyterlab(browser, notebook):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(1000 * SECONDS)
    page.goto(notebook)
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.get_by_text("| Idle").wait_for()
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".marker")
    assert checked(page)["settings"]["l2"] == 0.5
    page.locator(".left > .plane").scroll_into_view_if_needed()
    demo_browser.hold_point(page, 0)
    result = demo_browser.drag(page, 1.0)
    page.mouse.up()
    assert result["updates"] >= 3
    assert np.isfinite(result["latencies"]).all()
    # Keys are the widget's alone: in a notebook 2 makes a heading of the cell, and x cuts it out.
    page.keyboard.press("2")
    until(page, lambda shown: shown["labels"][0] == 2)
    page.keyboard.press("x")
    page.get_by_role("button", name="Run", exact=True).click()
    until(page, lambda shown: shown["readings"]["n_updates"] > 5)
    page.get_by_role("button", name="Stop").click()
    assert not until(page, lambda shown: not shown["running"])["preparing"]
    assert snapshot(page)["readings"]["total"] < 20
    page.close()
