"""The examples of CONTRIBUTING.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import fastloss

PAGE = Path(fastloss.__file__).parents[1] / "CONTRIBUTING.md"

#: The source of each example by the name of its file, which the first line says.
EXAMPLES: dict[str, str] = dict(
    re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
