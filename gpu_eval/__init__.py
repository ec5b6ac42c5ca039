"""Benchmarks of expert load balancing and MoE placement, on GPUs and on CPUs; `python -m gpu_eval --help`.

Needs numpy, and torch for what runs on a device; numba, plotly and a C compiler are optional: what lacks one leaves out
its rows and says so. Imports nothing else of this repository, so that the folder alone can be copied to a machine.
"""
