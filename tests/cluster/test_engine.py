"""What an engine is started with, that its guard leaves nothing behind, and when GPUs have room for it. Without Ray."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from adrs_ray.config import EngineConfig, RunConfig, parse_config
from adrs_ray.errors import RunError, UsageError
from cluster import engine_guard
from cluster.engine import EngineSpec, engine_command, engine_environment, engine_specs, told_line
from cluster.engine_guard import orphans, reap_orphans
from cluster.gpu_memory import GpuMemory, parse_memory, wait_for_room, without_room
from cluster.replica_keeper import LONGEST_PAUSE_S, pause_s
from tests.processes import descendants, kill, wait_gone

KEY = "canary-of-the-pool"


def spec(**changes: object) -> EngineSpec:
    engine = EngineConfig(source="org/model", **changes)  # type: ignore[arg-type]
    return EngineSpec("run", "small", 0, "small-served", 8192, engine, key=KEY)


def config(**pool: object) -> RunConfig:
    models = {"small": {"model": "s", "api_key_env": "HOSTED_KEY"}, "strong": {"model": "t", "context_tokens": 16384}}
    return parse_config({"generator": {"kind": "openai"}, "models": models, "pool": pool}, "test")


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_says_what_the_config_says_and_never_the_key():
    given = spec(
        tensor_parallel=4,
        revision="abc",
        quantization="fp8",
        reasoning_parser="qwen3",
        engine_args=["--max-num-seqs=9"],
    )
    command = engine_command(given, "/venv/bin/python", "10.0.0.7", 4711)
    assert command[:3] == ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert command[-1] == "--max-num-seqs=9"
    expected = {
        "--model": "org/model",
        "--served-model-name": "small-served",
        "--revision": "abc",
        "--host": "10.0.0.7",
        "--port": "4711",
        "--tensor-parallel-size": "4",
        "--distributed-executor-backend": "mp",
        "--dtype": "auto",
        "--max-model-len": "8192",
        "--gpu-memory-utilization": "0.9",
        "--quantization": "fp8",
        "--reasoning-parser": "qwen3",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert "--enable-prefix-caching" in command
    assert "--enable-sleep-mode" not in command
    assert KEY not in " ".join(command) + repr(given)


def test_one_gpu_needs_no_executor_and_a_cpu_no_share_of_memory():
    assert "--distributed-executor-backend" not in engine_command(spec(), "python", "h", 1)
    command = engine_command(spec(device="cpu"), "python", "h", 1)
    assert "--gpu-memory-utilization" not in command
    assert spec(device="cpu").gpus == 0


def test_an_engine_sees_its_gpus_and_key_and_neither_ray_nor_other_secrets():
    given = EngineSpec(
        "run", "small", 3, "s", 8192, EngineConfig(env={"MINE": "1"}), may_sleep=True, hidden=("HOSTED_KEY",), key=KEY
    )
    inherited = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "RAY_JOB_ID": "1",
        "PYTHONPATH": "/ours",
        "HOSTED_KEY": "secret",
    }
    found = engine_environment(given, inherited, ["2", "3"])
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert found["VLLM_API_KEY"] == KEY
    assert found["ADRS_ENGINE"] == "run/small/3"
    assert found["VLLM_SERVER_DEV_MODE"] == "1"
    assert {"PATH", "HF_HOME", "HF_HUB_OFFLINE", "MINE"} <= found.keys()
    assert not {"RAY_JOB_ID", "PYTHONPATH", "HOSTED_KEY"} & found.keys()
    assert "secret" not in found.values()
    assert "VLLM_SERVER_DEV_MODE" not in engine_environment(spec(), inherited, [])
    assert engine_environment(spec(device="cpu"), inherited, [])["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        ({"engine_args": ["--api-key", "x"]}, "--api-key"),
        ({"engine_args": ["--port=80"]}, "--port"),
        ({"engine_args": ["--max_model_len", "1"]}, "models.small.context_tokens"),
        ({"engine_args": ["--no-enable-sleep-mode"]}, "pool.one_gpu"),
        ({"env": {"VLLM_API_KEY": "x"}}, "VLLM_API_KEY"),
        ({"device": "cpu", "tensor_parallel": 2}, "tensor_parallel"),
    ],
)
def test_what_the_pool_decides_is_refused_in_one_line(engine, named):
    with pytest.raises(UsageError) as caught:
        engine_specs(config(models={"small": engine, "strong": {}}), "run")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_replica_has_a_spec_and_the_widest_are_placed_first():
    found = engine_specs(config(models={"small": {"replicas": 3}, "strong": {"tensor_parallel": 2}}), "run", KEY)
    assert [(s.model, s.number, s.gpus) for s in found] == [
        ("strong", 0, 2),
        ("small", 0, 1),
        ("small", 1, 1),
        ("small", 2, 1),
    ]
    assert found[0].context_tokens == 16384
    assert found[0].hidden == ("HOSTED_KEY",)


def test_a_log_is_told_by_its_last_error_without_the_key():
    log = f"INFO fine\nValueError: {KEY} is\tno model\nTraceback follows\n\n"
    assert told_line(log, [KEY]) == "ValueError: *** is no model"
    assert told_line("one\ntwo\n", []) == "two"
    assert told_line("\x1b[31mError: red\0", []).isprintable()
    assert told_line("", []) == ""


def test_pauses_grow_and_end_growing():
    assert pause_s(0) == 0
    pauses = [pause_s(failures) for failures in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == LONGEST_PAUSE_S


MARKER = f"run-{os.getpid()}/small/0"
ENGINE = """
import signal, subprocess, sys, time
core = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", core])
print("up", flush=True)
time.sleep(600)
"""


class Guarded:
    """An engine with a core that leaves its session and ignores SIGTERM, below a guard."""

    def __init__(self, code: str = ENGINE, marker: str = MARKER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", engine_guard.__file__, str(os.getpid()), sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "ADRS_ENGINE_GUARD": marker},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        deadline = time.monotonic() + 20
        while len(self.family) < 4 and code == ENGINE and time.monotonic() < deadline:
            time.sleep(0.02)
        self.outer, self.inner, self.engine, self.core = (sorted(self.family) + [0] * 4)[:4]

    @property
    def family(self) -> dict[int, str]:
        return descendants(self.process.pid)


@pytest.fixture
def guarded():
    made = Guarded()
    family = set(made.family)
    yield made
    kill(sorted(family))
    made.process.wait()


@pytest.mark.parametrize("victim", ["stdin", "outer", "inner", "engine", "term"])
def test_whoever_is_killed_nothing_of_an_engine_is_left(guarded, victim):
    family = set(guarded.family)
    assert len(family) == 4
    if victim == "stdin":
        guarded.process.stdin.close()
    elif victim == "term":
        guarded.process.send_signal(signal.SIGTERM)
    else:
        kill([getattr(guarded, victim)])
    guarded.process.wait(10)
    assert wait_gone(family, 5) == {}


def test_who_lost_the_actor_without_its_pipe_closing_ends_too():
    actor = """
import os, subprocess, sys
guard = [sys.executable, "-I", sys.argv[1], str(os.getpid()), sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(guard, stdin=0, stdout=2).pid, flush=True)
"""
    read, write = os.pipe()
    command = [sys.executable, "-c", actor, engine_guard.__file__]
    done = subprocess.run(command, stdin=read, stdout=subprocess.PIPE, check=True)
    family = {int(done.stdout), *descendants(int(done.stdout))}
    try:
        assert wait_gone(family, 5) == {}
    finally:
        kill(sorted(family))
        os.close(read)
        os.close(write)


def test_the_status_of_a_guard_is_that_of_its_engine():
    assert Guarded("print(flush=True); raise SystemExit(7)").process.wait(20) == 7
    assert Guarded("import os; print(flush=True); os.kill(os.getpid(), 9)").process.wait(20) == 128 + 9
    missing = [sys.executable, "-I", engine_guard.__file__, str(os.getpid()), "/no/such/python"]
    done = subprocess.run(missing, stdin=subprocess.PIPE, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "cannot start /no/such/python" in done.stderr


def test_orphans_are_engines_without_a_guard_and_only_they_are_reaped(guarded):
    others = Guarded(marker="other/small/0")
    try:
        family = set(guarded.family)
        assert not family & orphans().keys()
        kill([guarded.outer, guarded.inner])
        assert wait_gone({guarded.outer, guarded.inner, guarded.engine}, 5) == {}
        assert orphans(MARKER) == {guarded.core: MARKER}
        assert reap_orphans(f"{MARKER}1") == []
        assert reap_orphans(MARKER) == [guarded.core]
        assert wait_gone(family, 5) == {}
        assert len(others.family) == 4
    finally:
        left = set(others.family)
        kill(sorted(left))
        others.process.wait()


SMI = "0, GPU-aaaa, 70000, 81559\n1, GPU-bbbb, 12, 81559\nnonsense\n2, GPU-cccc, [N/A], [N/A]\n"


def test_nvidia_smi_is_read_and_lines_that_say_nothing_are_left_out():
    assert parse_memory(SMI) == [GpuMemory("0", "GPU-aaaa", 70000, 81559), GpuMemory("1", "GPU-bbbb", 12, 81559)]
    assert parse_memory("\0,,,\n") == []


def test_room_is_what_the_engine_takes_beside_what_is_used():
    memory = parse_memory(SMI)
    assert [gpu.index for gpu in without_room(memory, ["0", "1"], 0.9)] == ["0"]
    assert [gpu.index for gpu in without_room(memory, ["GPU-aaaa"], 0.9)] == ["0"]
    assert without_room(memory, ["0"], 0.1) == []
    assert without_room(memory, ["2", "7"], 0.9) == []


def test_a_gpu_that_stays_full_is_named_with_what_it_holds():
    readings = [SMI, SMI, SMI.replace("70000", "500")]

    async def query() -> list[GpuMemory] | None:
        return parse_memory(readings.pop(0))

    asyncio.run(wait_for_room(["0"], 0.9, wait_s=60, query=query, tick_s=0))
    assert readings == []
    readings = [SMI]
    with pytest.raises(RunError, match="GPU 0 has 70000 of 81559 MiB in use"):
        asyncio.run(wait_for_room(["0"], 0.9, wait_s=0, query=query, tick_s=0))

    async def unknown() -> list[GpuMemory] | None:
        return None

    asyncio.run(wait_for_room(["0"], 0.9, wait_s=0, query=unknown))
