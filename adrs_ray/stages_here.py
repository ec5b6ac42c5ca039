"""How far the stages of a task can be measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from adrs_ray.evaluator.gpus import groups_of, visible_devices
from adrs_ray.task import Stage, Task


def served_here(task: Task, last_stage: str | None = None) -> tuple[Task, str | None]:
    """The task up to `last_stage`, or up to the last stage for which this machine has the GPUs, and a line that says
    which stage was left out and why.

    The whole task and no line where all can be measured, and where not even the first stage can. Raises UsageError for
    a stage that the task does not have.
    """
    if last_stage is not None:
        return task.up_to(last_stage), None
    if not any(stage.gpus for stage in task.spec.stages):
        return task, None
    devices = visible_devices()
    for before, stage in zip(task.spec.stages, task.spec.stages[1:], strict=False):
        if stage.gpus and not groups_of(devices, stage):
            shown = f"{len(devices) or 'none'}"
            note = f"stage {stage.name} needs {stage.gpus:g} GPU, this machine shows {shown}: judged in {before.name}"
            return task.up_to(before.name), note
    return task, None


def way_out(stages: Sequence[Stage]) -> str:
    """For the end of a refusal, how to do without GPUs: with the last of the stages that needs none; '' without any."""
    without = [stage.name for stage in stages if not stage.gpus]
    return f"; a search can end with stage {without[-1]}: --last-stage {without[-1]}" if without else ""
