"""Stand-in for `openevolve.evaluation_result`, so that evaluators that import it run where OpenEvolve is not installed.

There is no `__init__.py` beside it on purpose: an installed OpenEvolve, being a regular package, takes precedence.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class EvaluationResult:
    """Metrics of one evaluation and, beside them, texts or bytes that tell more about it."""

    metrics: dict[str, float]
    artifacts: dict[str, str | bytes] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, metrics: dict[str, float]) -> EvaluationResult:
        """A result without artifacts."""
        return cls(metrics=metrics)

    def to_dict(self) -> dict[str, float]:
        """The metrics alone."""
        return self.metrics

    def has_artifacts(self) -> bool:
        return len(self.artifacts) > 0

    def get_artifact_keys(self) -> list[str]:
        return list(self.artifacts)

    def get_artifact_size(self, key: str) -> int:
        """Bytes of one artifact, 0 when there is none of that name."""
        value = self.artifacts.get(key, "")
        return len(value if isinstance(value, bytes) else str(value).encode())

    def get_total_artifact_size(self) -> int:
        """Bytes of all artifacts together."""
        return sum(self.get_artifact_size(key) for key in self.artifacts)
