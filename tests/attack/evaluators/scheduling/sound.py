"""The hole closed: the program runs apart, every input counts, every figure is computed here."""

from apart import answers_of

CASES = [([5, 3, 8, 6, 2, 7, 4, 9], 3), ([4, 4, 4, 9, 1, 2, 11], 2), ([7, 1, 7, 1, 7, 1, 7, 20, 3], 4), ([30, 1, 1], 3)]


def evaluate(path):
    gains = []
    for (jobs, machines), (_, plan) in zip(CASES, answers_of(path, "schedule", CASES), strict=True):
        if len(plan) != len(jobs) or any(type(m) is not int or not 0 <= m < machines for m in plan):
            raise ValueError("no plan")
        work = [0] * machines
        for job, machine in zip(jobs, plan, strict=True):
            work[machine] += job
        gains.append(max(max(jobs), sum(jobs) / machines) / max(work))
    return {"combined_score": sum(gains) / len(gains)}
