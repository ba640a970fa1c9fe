"""Run ``python -m fastloss`` and the ``fastloss`` command."""

import codecs
import os
import sys
from io import TextIOWrapper
from pathlib import Path


def main() -> None:
    """Run the command line; exit with a message if a dependency is missing."""
    _accept_any_character()
    try:
        from fastloss.cli import app
    except KeyboardInterrupt:
        print("fastloss: interrupted", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastloss"):
            raise
        from fastloss.version import install_extra

        sys.exit(
            f"fastloss: the command line needs {error.name}; install it with\n"
            f"    {install_extra('bench')}"
        )
    app()


def _accept_any_character() -> None:
    """Replace characters that the output encoding lacks: the micro sign by "u", others by "?"."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        missing = error.object[error.start : error.end]
        return "".join({"µ": "u"}.get(character, "?") for character in missing), error.end

    codecs.register_error("fastloss", replace)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (open until exit)
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="fastloss")


if __name__ == "__main__":
    main()
