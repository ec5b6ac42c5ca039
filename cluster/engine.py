"""The command line and the environment of one vLLM server. Pure: what the config says becomes what the system runs.

Only surfaces that vLLM keeps stable are used: arguments of its OpenAI server, HTTP and /metrics. Checked against the
parser of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from adrs_ray.config import EngineConfig, RunConfig
from adrs_ray.errors import UsageError
from cluster.engine_guard import ENGINE_VARIABLE

SERVER_MODULE = "vllm.entrypoints.openai.api_server"
KEY_VARIABLE = "VLLM_API_KEY"

_POOL_SETS = {
    "--model": "pool.models.NAME.source",
    "--served-model-name": "models.NAME.model",
    "--revision": "pool.models.NAME.revision",
    "--host": "nothing: the pool binds to the node's address",
    "--port": "nothing: the pool reserves one",
    "--uds": "nothing: the pool reserves a port",
    "--api-key": "nothing: the pool makes a key of its own",
    "--tensor-parallel-size": "pool.models.NAME.tensor_parallel",
    "-tp": "pool.models.NAME.tensor_parallel",
    "--distributed-executor-backend": "nothing: one replica is one node's processes",
    "--dtype": "pool.models.NAME.dtype",
    "--max-model-len": "models.NAME.context_tokens",
    "--gpu-memory-utilization": "pool.models.NAME.gpu_memory",
    "--quantization": "pool.models.NAME.quantization",
    "-q": "pool.models.NAME.quantization",
    "--reasoning-parser": "pool.models.NAME.reasoning_parser",
    "--enable-sleep-mode": "pool.one_gpu",
    "--disable-log-stats": "nothing: the pool reads /metrics",
}
"""Arguments that are not for `engine_args`, and where what they say belongs."""
_NOT_INHERITED = ("RAY_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "ADRS_", "VLLM_API_KEY")
"""Prefixes of variables that are of this process alone: an engine may have an interpreter of its own, and must not
find a Ray to join."""
_FIXED = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    # Without it, a process that names itself overwrites its environment, and the marker with it.
    "SPT_NOENV": "1",
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One replica as its actor needs it."""

    pool: str
    model: str
    """Its name among the config's `models`."""
    number: int
    """Of the replica among those of its model, from 0."""
    served: str
    """The name that requests give."""
    context_tokens: int
    engine: EngineConfig
    python: str | None = None
    """None: the interpreter of the actor."""
    may_sleep: bool = False
    hidden: tuple[str, ...] = ()
    """Environment variables that hold secrets of others."""
    key: str = field(default="", repr=False)

    @property
    def marker(self) -> str:
        """In the environment of every process of the engine."""
        return f"{self.pool}/{self.model}/{self.number}"

    @property
    def gpus(self) -> int:
        return self.engine.tensor_parallel if self.engine.device == "cuda" else 0


def engine_specs(config: RunConfig, pool: str, key: str = "", may_sleep: bool = False) -> list[EngineSpec]:
    """Every replica that the config asks for, those of more GPUs first.

    Raises UsageError, one line, for engine settings that the pool itself decides.
    """
    hidden = tuple(sorted({model.api_key_env for model in config.models.values() if model.api_key_env}))
    specs = []
    for name, engine in config.pool.models.items():
        check_engine(name, engine)
        model = config.models[name]
        specs += [
            EngineSpec(
                pool,
                name,
                number,
                model.model,
                model.context_tokens,
                engine,
                config.pool.python,
                may_sleep,
                hidden,
                key,
            )
            for number in range(engine.replicas)
        ]
    return sorted(specs, key=lambda spec: -spec.gpus)


def check_engine(name: str, engine: EngineConfig) -> None:
    """Raise UsageError when `engine_args` or `env` set what the pool decides or what is secret."""
    for argument in engine.engine_args:
        flag = argument.split("=", 1)[0].replace("_", "-")
        flag = flag.replace("--no-", "--", 1)
        if flag in _POOL_SETS:
            belongs = _POOL_SETS[flag].replace("NAME", name)
            raise UsageError(f"pool.models.{name}.engine_args: {flag} is not for engine_args, use {belongs}")
    for variable in engine.env:
        if variable in ("CUDA_VISIBLE_DEVICES", KEY_VARIABLE, ENGINE_VARIABLE):
            raise UsageError(f"pool.models.{name}.env: {variable} is set by the pool: remove it")
    if engine.device == "cpu" and engine.tensor_parallel > 1:
        raise UsageError(f"pool.models.{name}: tensor_parallel {engine.tensor_parallel} needs device: cuda")


def engine_command(spec: EngineSpec, python: str, host: str, port: int) -> list[str]:
    """The arguments of the server; the key is not among them."""
    engine = spec.engine
    command = [python, "-m", SERVER_MODULE]
    command += ["--model", engine.source or spec.served, "--served-model-name", spec.served]
    if engine.revision is not None:
        command += ["--revision", engine.revision]
    command += ["--host", host, "--port", str(port), "--tensor-parallel-size", str(engine.tensor_parallel)]
    if engine.tensor_parallel > 1:
        command += ["--distributed-executor-backend", "mp"]
    command += ["--dtype", engine.dtype, "--max-model-len", str(spec.context_tokens)]
    if engine.device == "cuda":
        command += ["--gpu-memory-utilization", f"{engine.gpu_memory:g}"]
    command += ["--enable-prefix-caching", "--disable-uvicorn-access-log"]
    if engine.quantization is not None:
        command += ["--quantization", engine.quantization]
    if engine.reasoning_parser is not None:
        command += ["--reasoning-parser", engine.reasoning_parser]
    if spec.may_sleep:
        command += ["--enable-sleep-mode"]
    return command + engine.engine_args


def engine_environment(spec: EngineSpec, inherited: Mapping[str, str], devices: Sequence[str]) -> dict[str, str]:
    """The whole environment of the server.

    `devices` are the only GPUs it sees. Proxies, caches and offline switches of Hugging Face come from the node.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_NOT_INHERITED) and name not in spec.hidden
    }
    own = {"CUDA_VISIBLE_DEVICES": ",".join(devices), KEY_VARIABLE: spec.key, ENGINE_VARIABLE: spec.marker}
    if spec.may_sleep:
        own["VLLM_SERVER_DEV_MODE"] = "1"  # where vLLM keeps /sleep and /wake_up
    return {**kept, **_FIXED, **spec.engine.env, **own}


def told_line(log: str, secrets: Collection[str], longest: int = 300) -> str:
    """What the end of an engine's log says of why it failed, in one line without secrets; "" when it says nothing."""
    lines = [" ".join(line.split()) for line in log.splitlines()]
    lines = [line for line in lines if line]
    telling = [line for line in lines if "Error" in line or "error:" in line or "Exception" in line]
    line = (telling or lines or [""])[-1]
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    return "".join(char if char.isprintable() else " " for char in line)[:longest]
