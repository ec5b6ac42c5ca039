"""Stand-in for the public module of this name: the job of one run."""


class Task:
    """A job that needs `task_duration` seconds of work."""

    def __init__(self, task_duration: float) -> None:
        self.task_duration = task_duration
        self.task_duration_hours = task_duration / 3600
