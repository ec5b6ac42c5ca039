"""Stand-in for the public package of the same name."""

from .strategy import MultiRegionStrategy, Strategy
