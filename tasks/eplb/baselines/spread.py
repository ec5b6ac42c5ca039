"""Experts in order, whatever their loads, groups on their nodes; spare slots go round the experts of the node."""

import torch


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    layers, experts = weight.shape
    if num_replicas % num_gpus or num_gpus % num_nodes or experts % num_groups or num_replicas < experts:
        raise ValueError("sizes that do not divide")
    if not bool((torch.isfinite(weight.double()) & (weight >= 0)).all()):
        raise ValueError("loads are finite and at least 0")
    nodes = 1 if num_groups % num_nodes else num_nodes
    own, slots = experts // nodes, num_replicas // nodes
    expert = torch.arange(slots) % own
    gpus = num_gpus // nodes
    dealt = torch.arange(slots).view(slots // gpus, gpus).t().reshape(-1)  # to the GPUs in turn
    on_node = expert[dealt]
    placed = torch.cat([on_node + node * own for node in range(nodes)])
    count = torch.bincount(placed, minlength=experts)
    inverse = torch.full((experts, int(count.max())), -1)
    order = placed.argsort(stable=True)
    inverse[placed[order], torch.cat([torch.arange(int(copies)) for copies in count])] = order
    return tuple(part.to(weight.device).repeat(layers, *[1] * part.ndim) for part in (placed, inverse, count))
