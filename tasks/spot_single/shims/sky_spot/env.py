"""Stand-in for the public module of this name: what a strategy may read of its environment, as plain attributes."""

from .utils import ClusterType


class Env:
    """The present of one run. The adapter sets the attributes before each decision; the future is in no process."""

    NAME = "trace"

    def __init__(self, gap_seconds: float) -> None:
        self.gap_seconds = gap_seconds
        self.tick = 0
        self.observed_tick = 0
        self.elapsed_seconds = 0.0
        self.cluster_type = ClusterType.NONE
        """What still runs: NONE after a preemption."""
