"""Stand-in for the public module of this name: programs `from sky_spot.strategies.strategy import Strategy`."""

from __future__ import annotations

from typing import Any

from ..utils import ClusterType


class Strategy:
    """Base class of strategies: override `_step`. One object per run; times in seconds."""

    NAME = "strategy"

    def __init__(self, args: Any = None) -> None:
        self.args = args
        if args is not None:  # else they are there from `reset` on
            self.deadline = args.deadline_hours * 3600
            self.restart_overhead = args.restart_overhead_hours * 3600
            self.task_duration = args.task_duration_hours * 3600
        self.env: Any = None
        self.task: Any = None
        self.task_done_time: list[float] = []
        """Work done in each gap so far; the first entry is that of no gap, 0."""
        self.remaining_restart_overhead = 0.0
        """What is still to burn before the cluster that runs does work."""

    @classmethod
    def from_args(cls, parser: Any) -> Strategy:
        return cls._from_args(parser)

    @classmethod
    def _from_args(cls, parser: Any) -> Strategy:
        args, _ = parser.parse_known_args()
        return cls(args)

    def reset(self, env: Any, task: Any) -> None:
        """Called once before the first step."""
        self.env = env
        self.task = task
        self.task_done_time = []
        self.remaining_restart_overhead = 0.0

    def _step(self, last_cluster_type: ClusterType, has_spot: bool) -> ClusterType:
        """The cluster type wanted for the gap that starts."""
        raise NotImplementedError
