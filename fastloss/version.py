"""The version of fastloss, and how to install its extras; imports no other module."""

__version__ = "0.2.0"


def install_extra(extra: str) -> str:
    """Return the command that installs an extra: no package index has fastloss."""
    return f"pip install '.[{extra}]' in a checkout of fastloss"
