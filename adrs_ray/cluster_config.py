"""The sections of the config that say where things run: model servers, evaluation slots, Ray, the journal's mirror.

The tree is `adrs_ray.config`.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from adrs_ray.search_config import Section
from adrs_ray.task_spec import SECRET_INPUT


class EngineConfig(Section):
    """How the pool serves one of `models`; the name that requests give is `models.<name>.model`."""

    source: str | None = Field(
        default=None, description="Hugging Face repository, or a folder that every GPU node has (default: its model)"
    )
    revision: str | None = Field(default=None, description="of the repository, a commit")
    replicas: int = Field(default=1, ge=1, le=1024, description="servers of this model")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that one replica is split over, on one node")
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="what engines run on; cpu is for small tests")
    cpus: float = Field(default=2.0, gt=0, description="CPUs that one replica reserves")
    gpu_memory: float = Field(default=0.9, gt=0, le=1, description="share of each GPU's memory that the engine takes")
    dtype: str = Field(default="auto", description="of weights and activations")
    quantization: str | None = Field(default=None, description="as vLLM's --quantization (default: the model's own)")
    reasoning_parser: str | None = Field(default=None, description="as vLLM's --reasoning-parser")
    engine_args: list[str] = Field(default_factory=list, description="further arguments of the vLLM server")
    env: dict[str, str] = Field(default_factory=dict, description="further environment of the engine; no secrets")
    start_timeout_s: float = Field(default=1800.0, gt=0, description="from start to a served request")


class PoolConfig(Section):
    """Model servers: those that a run starts on the cluster's GPUs, and those that are there already."""

    preset: str | None = Field(
        default=None, description="fill `models` and `pool.models` from this entry of `adrs models list`"
    )
    models: dict[str, EngineConfig] = Field(default_factory=dict, description="by name among `models`")
    endpoints: list[str] = Field(
        default_factory=list,
        description="base URLs of servers that are there, each asked which models it has; for models without base_url",
    )
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="runs that give the same name share one pool (default: a pool of this run alone)",
    )
    python: str | None = Field(default=None, description="interpreter that has vLLM (default: this one)")
    max_in_flight: int = Field(default=64, ge=1, description="requests at one replica, of all runs that share it")
    one_gpu: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: where engines hold every GPU, they sleep while a batch of candidates is measured on one",
    )
    batch: int = Field(default=16, ge=1, description="one_gpu: candidates that are waited for before engines sleep")
    batch_wait_s: float = Field(default=120.0, ge=0, description="one_gpu: how long the first of them waits at most")

    @field_validator("endpoints", mode="before")
    @classmethod
    def _are_addresses(cls, value: Any) -> Any:
        """Before all else, so that no complaint repeats a key that stands in a URL."""
        urls = [url for url in (value if isinstance(value, list) else [value]) if isinstance(url, str)]
        for number, url in enumerate(urls, 1):
            if any(mark in url for mark in "@?#"):
                raise PydanticCustomError(
                    SECRET_INPUT,
                    "address {number} holds a user, a query or a fragment: give it bare, such as "
                    "http://10.0.0.7:8000/v1, and the name of a key's variable in models.<name>.api_key_env",
                    {"number": number},
                )
        for url in urls:
            if not _is_address(url):
                raise ValueError(f"{url!r} is no address, such as http://10.0.0.7:8000/v1")
        return value


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class CascadeConfig(Section):
    """The gate between the stages of a task: which candidates the dearer one measures."""

    open_until: int = Field(default=30, ge=2, description="pairs of scores an island needs before its gate may close")
    random_pass: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of those held back that pass all the same, so that it keeps learning",
    )
    chance: float = Field(
        default=0.1, gt=0, lt=1, description="least chance to enter the better half of what was measured, to pass"
    )


class EvaluatorConfig(Section):
    """How candidates are run."""

    slots: int | None = Field(default=None, ge=1, le=4096, description="evaluations at once (default: one per CPU)")
    gpu_slots: int | None = Field(
        default=None, ge=1, le=1024, description="GPU evaluations at once (default: what the pool leaves of the GPUs)"
    )
    sandbox: Literal["strict", "unsafe"] = Field(
        default="strict",
        description="strict refuses without a jail; unsafe runs without one and marks every verdict",
    )
    python: str | None = Field(default=None, description="interpreter for candidates (default: this one)")
    retries: int = Field(default=2, ge=0, le=10, description="further attempts when the failure is ours")
    cascade: CascadeConfig = CascadeConfig()


class MirrorConfig(Section):
    """A copy of the journal elsewhere: what is left when a disk is lost."""

    url: str | None = Field(
        default=None, description="folder of any fsspec file system, of this run; `adrs job` adds the run's name"
    )
    lag_s: float = Field(default=5.0, gt=0, le=3600, description="what was acknowledged is there after so many seconds")
    ack: Literal["local", "mirror"] = Field(
        default="local", description="mirror: nothing is acknowledged before the mirror has it"
    )


class ClusterConfig(Section):
    """Ray."""

    address: str | None = Field(default=None, description="Ray address to join (default: start an embedded Ray)")
    wait_s: float = Field(
        default=300.0, ge=0, description="how long a start waits for nodes that the run needs and a cluster lacks yet"
    )
    drain_s: float = Field(
        default=40.0, gt=0, description="a job that is told to end finishes what is under way for so long"
    )
    local_dir: str | None = Field(
        default=None,
        description="folder on the head's own disk for journals of jobs whose `out` is remote (default: the cache, or "
        "/var/tmp where that is on a network)",
    )
