"""Expert load balancing: copies of experts to GPUs, so that the next window's load is even. See README.md."""
