"""What a verdict costs beyond the candidate's own work: fork, jail, load, exchange of values, teardown.

Run: python -m tests.benchmarks.jail_overhead [rounds]. Prints a table in Markdown; times are milliseconds on this
machine under whatever load it has, which the load average in the last line tells.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from adrs_ray.candidate import Evaluation
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from tests.evaluator.tiny_task import SEED, write_task

WORKING = "import time\nimport numpy as np\ndef solve(x):\n    time.sleep(0.05)\n    return float(np.sum(x))\n"


async def measure(sandbox: str, source: str, own_ms: float, rounds: int) -> list[str]:
    """One row: median, 90th percentile and CPU milliseconds of one case, less the program's own sleep."""
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder))
        config = EvaluatorConfig.model_validate({"slots": 1, "sandbox": sandbox})
        evaluator = LocalEvaluator(task, config)
        started = time.perf_counter()
        await evaluator.start()
        start_ms = 1000 * (time.perf_counter() - started)
        try:
            took: list[float] = []
            cpu: list[float] = []
            for number in range(rounds + 3):
                started = time.perf_counter()
                verdict = await evaluator.evaluate(EvaluationJob(str(number), source, split="validation"))
                took.append(1000 * (time.perf_counter() - started) - own_ms)
                assert isinstance(verdict, Evaluation), verdict
                cpu.append(1000 * verdict.cases[0].cpu_s)
        finally:
            await evaluator.close()
    took, cpu = took[3:], cpu[3:]
    p90 = statistics.quantiles(took, n=10)[-1]
    return [f"{statistics.median(took):.1f}", f"{p90:.1f}", f"{statistics.median(cpu):.1f}", f"{start_ms:.0f}"]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print("| jail | program | overhead per verdict, median ms | 90 % ms | child CPU ms | start ms |")
    print("|---|---|---|---|---|---|")
    for sandbox in ("strict", "unsafe"):
        for name, source, own_ms in (("numpy sum", SEED, 0.0), ("numpy sum, 50 ms of sleep", WORKING, 50.0)):
            row = asyncio.run(measure(sandbox, source, own_ms, rounds))
            print(f"| {sandbox} | {name} | {' | '.join(row)} |")
    print(f"\n{rounds} verdicts per row, one case each; load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
