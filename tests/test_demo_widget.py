"""The demo as a widget: the page's messages, carried by the widget."""

from __future__ import annotations

import re

import pytest

from fastloss.demo.messages import MessageError
from fastloss.demo.server import STATIC
from fastloss.demo.widget import DemoWidget


class Recorded(DemoWidget):
    """A widget that keeps what it sends to its views."""

    def send(self, content, buffers=None):
        self.__dict__.setdefault("answers", []).append(content)

    def receive(self, content):
        # What ipywidgets calls for a message from a view.
        self._handle_custom_msg(content, [])
        return self.answers[-1]


def test_messages_are_answered_as_in_the_page():
    widget = Recorded()
    assert "setup" in widget.receive({"id": 1, "do": "open"})
    view = widget.receive({"id": 2, "do": "move", "point": 0, "x": 0.1, "y": 0.2})["view"]
    assert view["points"][0]["x"] == 0.1
    assert widget.receive({"id": 3, "do": "open"})["view"]["points"] == view["points"]
    assert "error" in widget.receive("nonsense")
    assert widget.address == view["address"]


def test_a_widget_begins_with_its_address():
    widget = Recorded("loss=softmax")
    widget.receive({"id": 1, "do": "set", "l2": 3})
    assert widget.receive({"id": 2, "do": "reset"})["view"]["address"] == "loss=softmax"


def test_a_widget_refuses_a_damaged_address():
    with pytest.raises(MessageError, match="colour"):
        Recorded("colour=red")
    DemoWidget.close_all()  # also the one that has no session


def test_widget_has_the_module_and_the_styles_of_the_page():
    widget = Recorded()
    module = str(widget._esm)
    assert not re.search("^import ", module, re.MULTILINE)
    assert module.count("export default") == 1
    for file in STATIC.glob("*.js"):
        last = file.read_text(encoding="utf-8").rstrip().rsplit("\n\n", 1)[1]
        assert (last in module) == (file.name != "page.js"), file.name
    assert str(widget._css) == (STATIC / "demo.css").read_text()


def test_closing_a_widget_ends_its_measurement():
    widget = Recorded()
    widget.receive({"id": 1, "do": "set", "rows": 10_000, "features": 3000})
    widget._handle_custom_msg({"id": 2, "do": "cost", "seconds": 60}, [])
    process = widget._session._cost._process
    widget.close()
    assert process.poll() is not None
