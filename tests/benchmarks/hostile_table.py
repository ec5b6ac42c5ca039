"""What became of every hostile program, by variant of the jail: `python -m tests.benchmarks.hostile_table`.

Prints a table in Markdown. `denied`: the program kept its honest score and the evidence tells what it was denied;
`no effect`: it kept its honest score without such evidence; `BREACH`: it got through.
"""

from __future__ import annotations

from adrs_ray.candidate import Evaluation, Verdict
from tests.security.corpus import CORPUS
from tests.security.ground import open_ground, unavailable
from tests.security.variants import VARIANTS


def outcome(verdict: Verdict) -> str:
    """One cell."""
    if not isinstance(verdict, Evaluation):
        return str(verdict.kind)
    if verdict.score != 0.0:
        return "BREACH"
    denied = sorted(name for name in verdict.evidence.denied if not name.startswith("open:"))
    files = any(name.startswith("open:") for name in verdict.evidence.denied)
    return f"denied: {', '.join([*denied, *(['open'] if files else [])])}" if denied or files else "no effect"


def main() -> None:
    """Print the table."""
    columns: dict[str, list[str]] = {}
    for variant in VARIANTS:
        reason = unavailable(variant)
        if reason is not None:
            columns[f"{variant} ({reason})"] = ["not tried"] * len(CORPUS)
            continue
        with open_ground(variant) as ground:
            columns[variant] = [
                "watchdog only"
                if hostile.needs_listener and not ground.has_listener
                else outcome(ground.slot.judge(ground.fill(hostile.source)))
                for hostile in CORPUS
            ]
    print(f"| program | expected | {' | '.join(columns)} |")
    print("|---" * (2 + len(columns)) + "|")
    for number, hostile in enumerate(CORPUS):
        expected = "honest score" if hostile.expected is None else str(hostile.expected)
        print(f"| {hostile.name} | {expected} | {' | '.join(column[number] for column in columns.values())} |")


if __name__ == "__main__":
    main()
