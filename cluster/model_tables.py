"""The catalogue as tables: what `adrs models list` prints and docs/models.md holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from cluster.fit import EngineNeed
from cluster.presets import Catalogue, Member, Model, Preset

Table: TypeAlias = tuple[tuple[str, ...], list[tuple[str, ...]]]

_PRESETS = (
    "preset", "name", "model", "replicas x GPUs", "context", "answer + reasoning", "in flight", "full-length requests",
)  # fmt: skip
_FILES = ("model", "repository", "licence", "revision", "weights", "GiB to fetch")
_MODELS = ("model", "parameters", "active", "native context", "KiB of cache a token", "reasoning parser", "sampling")


def tables(known: Catalogue) -> list[Table]:
    """Headings and rows: presets, where models are, what they are."""
    presets = [row for name, preset in known.presets.items() for row in _preset_rows(name, preset, known)]
    files = [_file_row(name, model) for name, model in known.models.items()]
    return [(_PRESETS, presets), (_FILES, files), (_MODELS, [_model_row(*each) for each in known.models.items()])]


def markdown(known: Catalogue) -> str:
    """The tables, and what is to know of each preset and model."""
    parts = ["\n".join(_markdown(headings, rows)) for headings, rows in tables(known)]
    notes = [f"- `{name}`: {preset.summary}" for name, preset in known.presets.items()]
    notes += [f"- `{name}`: {model.note}" for name, model in known.models.items() if model.note]
    return "\n\n".join([*parts, "\n".join(notes)])


def _preset_rows(name: str, preset: Preset, known: Catalogue) -> list[tuple[str, ...]]:
    return [
        (
            name,
            role,
            member.use,
            f"as {member.shares}" if member.shares else f"{member.replicas} x {member.tensor_parallel}",
            f"{member.context_tokens:,}",
            f"{member.max_tokens:,} + {member.reasoning_tokens:,}",
            str(preset.max_in_flight),
            f"{_whole_requests(member, preset, known.models[member.use])}",
        )
        for role, member in preset.models.items()
    ]


def _whole_requests(member: Member, preset: Preset, model: Model) -> int:
    """Of full length, that one replica's cache holds; reckoned with what a card of this size shows as its memory."""
    need = EngineNeed("", 1, member.tensor_parallel, 0, 0.9, member.context_tokens, model.footprint)
    return int(need.cache_tokens(preset.gpu_gib - 0.5) // member.context_tokens)


def _file_row(name: str, model: Model) -> tuple[str, ...]:
    revision = model.revision if model.pinned else f"{model.revision}, not pinned"
    return (name, model.repository, model.license, revision, model.weights, f"{model.weights_gib:.1f}")


def _model_row(name: str, model: Model) -> tuple[str, ...]:
    sampling = {"temperature": model.temperature, "top_p": model.top_p, **model.extra_body}
    return (
        name,
        f"{model.total_b:g} B",
        f"{model.active_b:g} B",
        f"{model.native_context:,}",
        f"{model.kv.bytes_per_token / 1024:g}",
        model.reasoning_parser or "none",
        ", ".join(f"{key} {value:g}" for key, value in sampling.items()),
    )


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
