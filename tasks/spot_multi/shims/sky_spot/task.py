"""Stand-in for the public module of the same name."""

from dataclasses import dataclass


@dataclass
class Task:
    """The job, in seconds."""

    task_duration: float
    deadline: float
    restart_overhead: float


SingleTask = ChainedTask = Task
