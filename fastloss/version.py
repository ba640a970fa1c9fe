"""The version of fastloss, and how to install more of it; imports nothing of the package."""

__version__ = "0.2.0"


def install_extra(extra: str) -> str:
    """Return the command that installs an extra. No package index has fastloss."""
    return f"pip install '.[{extra}]' in a checkout of fastloss"
