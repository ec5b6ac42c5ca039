"""AI-driven research for systems: the loop of generator, evaluator, storage and selector."""

__version__ = "0.1.0"
