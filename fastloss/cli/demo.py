"""The command ``fastloss demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from fastloss.cli.common import app
from fastloss.version import install_extra


@app.command()
def demo(
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reached from here only.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; default: 8765 or the next free one."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in a browser.")
    ] = False,
) -> None:
    """Show a 2-D classifier in the browser: drag points, and watch losses and gradients."""
    try:
        from fastloss.demo.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastloss"):
            raise
        raise ImportError(
            f"the demo needs {error.name}; install it with {install_extra('demo')}"
        ) from None
    serve(host, port, open_browser=not no_browser)
