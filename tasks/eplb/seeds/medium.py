"""Copies of experts to GPUs: groups to nodes, then copies to hot experts, then copies to GPUs, each greedily."""

import torch


# EVOLVE-BLOCK-START
def pack(load, bins):
    """Items of each row into bins of equally many, heaviest first, each into the lightest bin with room.

    Gives the bin of every item, and its place there, both [rows, items].
    """
    rows, items = load.shape
    capacity = items // bins
    heaviest_first = load.argsort(dim=1, descending=True, stable=True).tolist()
    bin_of = torch.zeros(rows, items, dtype=torch.int64)
    place = torch.zeros(rows, items, dtype=torch.int64)
    for row in range(rows):
        total = [0.0] * bins
        filled = [0] * bins
        for item in heaviest_first[row]:
            best = min((b for b in range(bins) if filled[b] < capacity), key=total.__getitem__)
            bin_of[row, item] = best
            place[row, item] = filled[best]
            total[best] += float(load[row, item])
            filled[best] += 1
    return bin_of, place


def replicate(load, slots):
    """A slot to each expert, then every further slot to the expert with the largest load per copy.

    Gives the expert of every slot [rows, slots] and the copies of every expert [rows, experts].
    """
    rows, experts = load.shape
    expert_of = torch.arange(slots).repeat(rows, 1)
    copies = torch.ones(rows, experts, dtype=torch.int64)
    every_row = torch.arange(rows)
    for slot in range(experts, slots):
        hottest = (load / copies).argmax(dim=1)
        expert_of[:, slot] = hottest
        copies[every_row, hottest] += 1
    return expert_of, copies


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    layers, num_experts = weight.shape
    assert num_replicas % num_gpus == 0
    assert num_gpus % num_nodes == 0
    assert num_experts % num_groups == 0
    assert num_replicas >= num_experts
    device = weight.device
    weight = weight.cpu().double()
    if num_groups % num_nodes != 0:  # groups do not divide over nodes: experts go anywhere
        num_groups, num_nodes = 1, 1
    group_size = num_experts // num_groups
    slots_per_node = num_replicas // num_nodes
    slots_per_gpu = num_replicas // num_gpus

    node_of_group, _ = pack(weight.view(layers, num_groups, group_size).sum(2), num_nodes)
    physical_to_logical = torch.zeros(layers, num_replicas, dtype=torch.int64)
    for node in range(num_nodes):
        experts = []  # of this node, per layer
        for layer in range(layers):
            groups = [g for g in range(num_groups) if node_of_group[layer, g] == node]
            experts.append([g * group_size + i for g in groups for i in range(group_size)])
        experts = torch.tensor(experts)
        load = weight.gather(1, experts)
        expert_of, copies = replicate(load, slots_per_node)
        gpu, place = pack((load / copies).gather(1, expert_of), num_gpus // num_nodes)
        slot = node * slots_per_node + gpu * slots_per_gpu + place
        physical_to_logical.scatter_(1, slot, experts.gather(1, expert_of))

    slots_of = [[[] for _ in range(num_experts)] for _ in range(layers)]
    for layer in range(layers):
        for slot, expert in enumerate(physical_to_logical[layer].tolist()):
            slots_of[layer][expert].append(slot)
    expert_count = torch.tensor([[len(slots) for slots in row] for row in slots_of])
    most = int(expert_count.max())
    logical_to_physical = torch.tensor([[slots + [-1] * (most - len(slots)) for slots in row] for row in slots_of])
    return physical_to_logical.to(device), logical_to_physical.to(device), expert_count.to(device)


# EVOLVE-BLOCK-END
