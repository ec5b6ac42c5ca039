"""Copies of experts into slots: one each, the rest in turn, heavy or not."""


# EVOLVE-BLOCK-START
def rebalance(loads, slots):
    """Return (expert in each slot, number of copies of each expert)."""
    experts = len(loads)
    where = [slot % experts for slot in range(slots)]
    copies = [where.count(expert) for expert in range(experts)]
    return where, copies


# EVOLVE-BLOCK-END
