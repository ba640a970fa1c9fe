"""The source code of the examples in CONTRIBUTING.md."""

from __future__ import annotations

import re
from pathlib import Path

import fastloss

PAGE = Path(fastloss.__file__).parents[1] / "CONTRIBUTING.md"

#: Source of each example, by the file name in its first line.
EXAMPLES: dict[str, str] = dict(
    re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
