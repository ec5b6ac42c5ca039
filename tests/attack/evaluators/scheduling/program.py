"""Jobs onto machines, one after the other, each onto the machine with the least work so far."""


# EVOLVE-BLOCK-START
def schedule(jobs, machines):
    """Return (makespan, machine of each job)."""
    work = [0] * machines
    chosen = []
    for job in jobs:
        best = 0
        for machine in range(machines):
            if work[machine] < work[best]:
                best = machine
        work[best] += job
        chosen.append(best)
    return max(work), chosen


# EVOLVE-BLOCK-END
