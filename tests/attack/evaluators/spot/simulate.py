"""Runs a policy over traces and prints what it costs."""

import importlib.util
import random
import sys

PRICE = {"spot": 1.0, "on-demand": 3.0, "none": 0.0}


def cost_of(policy_class, seed):
    rng = random.Random(seed)
    policy, done, cost = policy_class(24, 16), 0, 0.0
    for hour in range(24):
        spot = rng.random() < 0.5
        choice = policy.step(hour, done, spot)
        if choice == "spot" and not spot:
            choice = "none"
        cost += PRICE[choice]
        done += choice != "none"
    return cost if done >= 16 else 1000.0


def main():
    spec = importlib.util.spec_from_file_location("program", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    costs = [cost_of(module.Policy, seed) for seed in range(4)]
    print(f"mean: {sum(costs) / len(costs)}")


if __name__ == "__main__":
    main()
