"""A task as a run plays it: what the config says of stages, start and names, applied to the task as it was loaded."""

from __future__ import annotations

from adrs_ray.config import RunConfig
from adrs_ray.isomorphic import disguised
from adrs_ray.task import Task


def configured(task: Task, config: RunConfig) -> Task:
    """The task with `last_stage`, `start` and `isomorphic` of a config.

    Raises UsageError for a stage or seed level that it does not have, and for a disguise that it cannot wear.
    """
    if config.last_stage is not None:
        task = task.up_to(config.last_stage)
    task = task.starting_from(config.start)
    return disguised(task) if config.isomorphic else task
