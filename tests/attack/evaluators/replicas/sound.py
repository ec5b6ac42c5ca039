"""The hole closed: the program runs apart, and copies are counted in the slots."""

from apart import answers_of

CASES = [([90, 10, 20, 30], 6), ([5, 5, 80, 10, 40, 1], 10)]


def evaluate(path):
    score = 0.0
    for (loads, slots), (where, copies) in zip(CASES, answers_of(path, "rebalance", CASES), strict=True):
        if len(where) != slots or set(where) != set(range(len(loads))):
            raise ValueError("some expert is nowhere")
        if copies != [where.count(expert) for expert in range(len(loads))]:
            raise ValueError("copies are not what stands in the slots")
        of_slots = [loads[expert] / copies[expert] for expert in where]
        score += (sum(of_slots) / slots) / max(of_slots)
    return {"balancedness": score / len(CASES), "combined_score": score / len(CASES)}
