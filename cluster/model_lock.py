"""`models.lock.yaml`: which commit of each repository was pulled, so that a run asks for the same one everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from adrs_ray.errors import RunError
from adrs_ray.task_spec import read_yaml_model, register_for_messages

LOCK_NAME = "models.lock.yaml"
DEFAULT_REVISION = "main"

_HEAD = """\
# Written by `adrs models pull`: the commit of each model, which runs take in place of its branch. Commit this file with
# the config; `adrs models pull --update` looks for newer ones.
"""


class Locked(BaseModel):
    """One repository."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str = Field(description="branch or tag that was asked for")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    bytes: int = Field(ge=0, description="of the files that an engine needs")


@register_for_messages
class Lock(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Locked] = Field(default_factory=dict)

    def commit(self, repository: str, revision: str | None) -> str | None:
        """The commit of this revision (None: the default branch), if it was pulled."""
        locked = self.models.get(repository)
        return locked.commit if locked is not None and locked.revision == (revision or DEFAULT_REVISION) else None


def read_lock(folder: Path) -> Lock:
    """The lock in the folder of a config; an empty one where there is none.

    Raises UsageError, one line, for a file that is no lock.
    """
    path = folder / LOCK_NAME
    return read_yaml_model(path, Lock, "`models` by repository") if path.exists() else Lock()


def write_lock(folder: Path, pulled: Mapping[str, Locked]) -> Path:
    """Add what was pulled to the lock there; the file is replaced whole. Raises RunError when the folder takes none."""
    path = folder / LOCK_NAME
    merged = Lock(models=dict(sorted({**read_lock(folder).models, **pulled}.items())))
    draft = path.with_name(f".{LOCK_NAME}.new")
    try:
        draft.write_text(_HEAD + yaml.safe_dump(merged.model_dump(), sort_keys=False), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
    return path
