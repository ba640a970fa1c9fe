"""``python -m fastloss`` and the ``fastloss`` command."""

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from fastloss.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastloss"):
            raise
        sys.exit(
            f"fastloss: the command line needs {error.name}; install it with\n"
            "    pip install 'fastloss[bench]'"
        )
    app()


if __name__ == "__main__":
    main()
