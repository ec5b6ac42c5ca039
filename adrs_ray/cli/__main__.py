"""`python -m adrs_ray.cli`: where the script `adrs` is not on the path."""

from adrs_ray.cli import main

main()
