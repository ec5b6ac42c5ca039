"""Stand-in for the public module of the same name."""

from ..env import MultiRegionEnv
from ..task import Task
from ..utils import ClusterType


class Strategy:
    """What strategies derive from: they define `_step` and read these attributes."""

    NAME = "strategy"

    def __init__(self, args=None):
        self.args = args
        self.task_done_time = []

    def reset(self, env: MultiRegionEnv, task: Task) -> None:
        """Called once, before the first tick."""
        self.env = env
        self.task = task
        self.task_duration = task.task_duration
        self.deadline = task.deadline
        self.restart_overhead = task.restart_overhead
        self.remaining_restart_overhead = 0.0
        self.task_done_time = []

    def _step(self, last_cluster_type: ClusterType, has_spot: bool) -> ClusterType:
        raise NotImplementedError

    @property
    def task_done(self):
        return sum(self.task_done_time) >= self.task_duration

    @classmethod
    def from_args(cls, parser):
        return cls._from_args(parser)

    @classmethod
    def _from_args(cls, parser):
        args, _ = parser.parse_known_args()
        return cls(args)

    @property
    def name(self):
        return self.NAME


class MultiRegionStrategy(Strategy):
    """A strategy that may switch regions: `self.env.switch_region(number)`."""

    NAME = "multi_region"
