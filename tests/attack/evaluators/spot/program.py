"""Which machine to use in the next hour: spot while there is any, on-demand when time runs out."""


# EVOLVE-BLOCK-START
class Policy:
    def __init__(self, deadline, work):
        self.deadline = deadline
        self.work = work

    def step(self, hour, done, spot):
        """Return "spot", "on-demand" or "none"."""
        if done >= self.work:
            return "none"
        if self.deadline - hour <= self.work - done + 1:
            return "on-demand"
        return "spot" if spot else "none"


# EVOLVE-BLOCK-END
