"""Measure how fast the demo's readings follow a drag, in a headless Chromium.

python bench/demo_drag.py

The goal is 30 updates a second or more, and 95 % of the moves drawn within 33 ms.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import demo_browser
import numpy as np

SECONDS = 2.0
REPEATS = 5


@contextmanager
def served() -> Iterator[str]:
    """Serve the demo in a process of its own, as ``fastloss demo`` does; return its address."""
    command = [sys.executable, "-m", "fastloss", "demo", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, "the server did not start"
            yield found[0]
        finally:
            process.terminate()


def main() -> None:
    """Print updates a second and the latency of the moves, for some repetitions."""
    if reason := demo_browser.why_not():
        sys.exit(reason)
    print(f"{SECONDS:g} s of drag   updates/s   latency: median    95 %     most")
    with served() as address, demo_browser.browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(address)
        page.wait_for_selector(".marker")
        demo_browser.hold_point(page, 0)
        for repeat in range(REPEATS):
            result = demo_browser.drag(page, SECONDS)
            rate = result["updates"] / SECONDS
            median, slow, most = np.quantile(result["latencies"], [0.5, 0.95, 1.0])
            print(
                f"{repeat + 1:>13}   {rate:9.1f}   {median:13.1f} ms {slow:6.1f} ms {most:6.1f} ms"
            )


if __name__ == "__main__":
    main()
