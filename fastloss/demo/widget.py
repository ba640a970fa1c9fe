"""The demo as a widget, for Jupyter, Colab, marimo and other hosts of anywidget."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import anywidget

from fastloss.demo.session import Session

_STATIC = Path(__file__).parent / "static"
# The modules of the page without page.js, each after those that it imports.
_MODULES = ("elements", "layout", "plane", "controls", "studies", "demo")


def _module() -> str:
    """Return the page's modules as one: a notebook gets a single text, which can import no file."""
    texts = ((_STATIC / f"{name}.js").read_text(encoding="utf-8") for name in _MODULES)
    return "\n".join(re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE) for text in texts)


class DemoWidget(anywidget.AnyWidget):
    """The plane of `fastloss demo` in a notebook.

    It has the page's module and the page's messages, as custom messages of the widget, so its
    readings follow a drag. All views of one widget show the same state.

    Parameters
    ----------
    address : the text of a state, as in the page's address; a damaged one raises ValueError.

    Examples
    --------
    >>> from fastloss.demo.widget import DemoWidget
    >>> DemoWidget("loss=softmax&l2=0.01").address
    'loss=softmax&l2=0.01'
    """

    _esm = _module()
    _css = _STATIC / "demo.css"

    def __init__(self, address: str = "", **keywords: Any) -> None:
        super().__init__(**keywords)
        self._session = Session(self.send, address, _thread_kind())
        self.on_msg(self._receive)

    @property
    def address(self) -> str:
        """Return the text of the present state."""
        return self._session.address

    def close(self) -> None:
        """End the widget, and everything that runs for it."""
        if hasattr(self, "_session"):  # absent if the address was refused
            self._session.close()
        super().close()

    def _receive(self, widget: Any, content: object, buffers: Any) -> None:
        self._session.receive(content)


def _thread_kind() -> type[Thread]:
    """Return the class of threads that may send: marimo knows the session by the thread."""
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return marimo.Thread
    return Thread
