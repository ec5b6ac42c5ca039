"""Model placement on GPUs so that the most loaded key-value cache is under little pressure: the task `prism`."""
