"""Stand-in for the public package of this name."""

from .strategy import Strategy

__all__ = ["Strategy"]
