"""What ranks do in tests: at the top of a module that their processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch.distributed as dist

from gpu_eval import multi_gpu_process
from gpu_eval.multi_gpu_job import MultiGpuJob
from gpu_eval.multi_gpu_process import Answer
from gpu_eval.ranks import Rank
from gpu_eval.weight_moves import WeightMove


def misbehave(rank: Rank, job: tuple[str, str]) -> object:
    """Leave the process id in a folder; then rank 1 does what `job` says while the others wait for it."""
    how, folder = job
    Path(folder, f"{rank.index}.pid").write_text(str(os.getpid()))
    dist.barrier()
    Path(folder, "all-there").touch()
    if rank.index == 1:
        if how == "raise":
            raise KeyError("no such\nexpert")
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "answer a lambda":
            dist.barrier()
            return lambda: None
        time.sleep(600)
    dist.barrier()
    return None


def measure_with_lost_message(rank: Rank, job: MultiGpuJob) -> Answer:
    """Measure, but what arrives in the first buffer of each process is lost before it is put into its slot."""

    class Lossy(WeightMove):
        def commit(self) -> None:
            next(iter(self._buffers.values()))[0].zero_()
            super().commit()

    multi_gpu_process.WeightMove = Lossy
    return multi_gpu_process.measure(rank, job)
