"""A red team for evaluators: cheating programs made from a task's own interface, judged as any program is.

    interface   what the evaluator calls in a program, found in the folder's syntax trees
    runtime     the part of a cheat that runs in the jail
    battery     families of cheats, made from the seed and the shape of its answers
    observe     what programs answered, noted beside their verdicts
    detector    when a verdict on a cheat is a finding
    campaign    one attack, from the seed's probe to confirmed findings

`docs/attack.md` says how to read a report, and what no report can say.
"""

from adrs_ray.attack.campaign import Finding, Options, Report, attack, report_json

__all__ = ["Finding", "Options", "Report", "attack", "report_json"]
