"""Baseline balancers, each file one whole program: it also runs alone, in a jail that holds nothing of ours."""
