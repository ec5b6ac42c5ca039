"""Manifests hold only fields that the operator knows, and what they ask for is what the configs need."""

import copy
import shlex
from pathlib import Path

import pytest
import ray
import yaml
from pydantic import ValidationError

from adrs_ray.config import read_config
from adrs_ray.task import builtin_tasks
from cluster.model_lock import LOCK_NAME
from cluster.presets import expand
from cluster.submit import STOP_MARGIN_S, STOP_WAIT
from tests.deploy.kuberay import KINDS, RayCluster, RayJob, VolumeClaim, amount

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kuberay").glob("*.yaml"))
SIZED_FOR = {"rayjob": "overnight-1x8.yaml", "raycluster": "overnight-4x8.yaml"}


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def parsed(path):
    return [KINDS[data["kind"]].model_validate(data) for data in documents(path)]


def manifest(name):
    (found,) = parsed(DEPLOY / "kuberay" / f"{name}.yaml")
    return found


def cluster_of(found):
    return found.spec if isinstance(found, RayCluster) else found.spec.ray_cluster_spec


def pods(cluster):
    """Replicas and template of every group, the head first."""
    workers = [(group.replicas, group.template.spec) for group in cluster.worker_group_specs]
    return [(1, cluster.head_group_spec.template.spec), *workers]


def config_for(name):
    return expand(read_config(DEPLOY / SIZED_FOR[name]))


@pytest.mark.parametrize("name", SIZED_FOR)
def test_the_guide_names_what_a_manifest_is_sized_for(name):
    guide = (DEPLOY / "README.md").read_text()
    (part,) = [part for part in guide.split("\n**")[1:] if f"`{name}.yaml`**" in part.splitlines()[0]]
    assert f"sized for `{SIZED_FOR[name]}`" in part
    assert f"preset {read_config(DEPLOY / SIZED_FOR[name]).pool.preset}" in part
    other = next(config for each, config in SIZED_FOR.items() if each != name)
    assert other not in part


def test_the_guide_gives_pods_the_lock_of_their_models():
    guide = (DEPLOY / "README.md").read_text()
    assert "adrs models pull --config overnight.yaml" in guide
    assert f"--from-file=deploy/{LOCK_NAME}" in guide
    job = manifest("rayjob")
    assert "--config /etc/adrs/overnight.yaml" in job.spec.entrypoint


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_field_is_one_that_the_operator_has(path):
    assert parsed(path)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_misspelt_field_anywhere_is_found(path):
    """The models are strict at every depth: renaming any key of the manifest makes it invalid."""
    free = {"requests", "limits", "labels", "rayStartParams"}

    def renamings(data, at=()):
        if isinstance(data, dict):
            for key, value in data.items():
                if at and at[-1] in free:
                    continue
                yield (*at, key)
                yield from renamings(value, (*at, key))
        elif isinstance(data, list):
            for number, value in enumerate(data):
                yield from renamings(value, (*at, number))

    for data in documents(path):
        for place in renamings(data):
            if place == ("kind",):
                continue
            broken = copy.deepcopy(data)
            target = broken
            for step in place[:-1]:
                target = target[step]
            target[f"{place[-1]}x"] = target.pop(place[-1])
            with pytest.raises(ValidationError):
                KINDS[data["kind"]].model_validate(broken)


@pytest.mark.parametrize("name", SIZED_FOR)
def test_every_container_is_limited_and_cannot_gain_rights(name):
    for _, pod in pods(cluster_of(manifest(name))):
        assert pod.security_context.run_as_non_root
        assert pod.security_context.seccomp_profile.type == "RuntimeDefault"
        for container in pod.containers:
            resources = container.resources
            assert {"cpu", "memory", "ephemeral-storage"} <= resources.limits.keys()
            assert resources.requests == resources.limits
            assert not container.security_context.allow_privilege_escalation
            assert container.security_context.capabilities.drop == ["ALL"]
            shm = [volume.empty_dir for volume in pod.volumes if volume.empty_dir is not None]
            # What is in memory counts against the container.
            assert sum(amount(each.size_limit) for each in shm) < amount(resources.limits["memory"])


@pytest.mark.parametrize("name", SIZED_FOR)
def test_gpus_and_cpus_are_those_that_the_config_needs(name):
    config, cluster = config_for(name), cluster_of(manifest(name))
    gpus = {
        group.group_name: group.replicas
        * int(group.template.spec.containers[0].resources.limits.get("nvidia.com/gpu", "0"))
        for group in cluster.worker_group_specs
    }
    engines = config.pool.models.values()
    assert gpus["models"] == sum(engine.replicas * engine.tensor_parallel for engine in engines)
    assert gpus["evaluators-gpu"] == config.evaluator.gpu_slots
    assert gpus["evaluators-cpu"] == 0
    for group in cluster.worker_group_specs:
        assert group.min_replicas == group.replicas == group.max_replicas
        cpus = group.template.spec.containers[0].resources.limits["cpu"]
        assert group.ray_start_params["num-cpus"] == cpus
    (models,) = [group for group in cluster.worker_group_specs if group.group_name == "models"]
    cpus = models.replicas * float(models.ray_start_params["num-cpus"])
    assert cpus >= sum(engine.replicas * engine.cpus for engine in engines)
    (slots,) = [group for group in cluster.worker_group_specs if group.group_name == "evaluators-cpu"]
    assert slots.replicas * float(slots.ray_start_params["num-cpus"]) == config.evaluator.slots


@pytest.mark.parametrize("name", SIZED_FOR)
def test_every_group_of_gpus_holds_whole_engines(name):
    """Split over the pods of the group, widest first, every engine finds its GPUs in one pod."""
    (models,) = [g for g in cluster_of(manifest(name)).worker_group_specs if g.group_name == "models"]
    free = [int(models.template.spec.containers[0].resources.limits["nvidia.com/gpu"])] * models.replicas
    widths = sorted(
        (e.tensor_parallel for e in config_for(name).pool.models.values() for _ in range(e.replicas)), reverse=True
    )
    for width in widths:
        pod = min((n for n in range(len(free)) if free[n] >= width), key=lambda n: free[n])
        free[pod] -= width
    assert min(free) == 0


@pytest.mark.parametrize("name", SIZED_FOR)
def test_wherever_a_gpu_is_an_engine_finds_its_weights(name):
    """A replica of a pod that was lost may be placed on any free GPU."""
    seen = 0
    for _, pod in pods(cluster_of(manifest(name))):
        for container in pod.containers:
            if "nvidia.com/gpu" not in container.resources.limits:
                continue
            seen += 1
            variables = {each.name: each.value for each in container.env}
            (mount,) = [each for each in container.volume_mounts if each.mount_path == variables["HF_HOME"]]
            (volume,) = [each for each in pod.volumes if each.name == mount.name]
            assert variables["HF_HUB_OFFLINE"] == "1"
            assert mount.read_only
            assert volume.persistent_volume_claim.read_only
            assert volume.persistent_volume_claim.claim_name == "adrs-models"
    assert seen == 2


@pytest.mark.parametrize("name", SIZED_FOR)
def test_the_head_waits_for_runs_to_drain(name):
    config, head = config_for(name), cluster_of(manifest(name)).head_group_spec
    assert head.template.spec.termination_grace_period_seconds >= config.cluster.drain_s + 30
    (container,) = head.template.spec.containers
    assert "pkill -TERM" in container.lifecycle.pre_stop.exec.command[-1]
    assert head.ray_start_params["num-cpus"] == "0"


def test_the_job_continues_its_run_after_a_failure():
    job = manifest("rayjob")
    assert isinstance(job, RayJob)
    assert job.metadata.labels["kueue.x-k8s.io/queue-name"]
    assert job.spec.suspend
    assert job.spec.backoff_limit > 0
    assert not job.spec.ray_cluster_spec.enable_in_tree_autoscaling, "Kueue reserves for a fixed size"
    words = shlex.split(job.spec.entrypoint)
    assert words[:2] == ["adrs", "job"]
    assert words[2] in builtin_tasks()
    assert words[words.index("--name") + 1] == job.metadata.name
    mounts = {
        mount.mount_path
        for mount in job.spec.ray_cluster_spec.head_group_spec.template.spec.containers[0].volume_mounts
    }
    assert words[words.index("--out") + 1] in mounts
    assert words[words.index("--set") + 1].removeprefix("mirror.url=") in mounts
    assert any(words[words.index("--config") + 1].startswith(f"{mount}/") for mount in mounts)


def test_the_job_has_time_for_its_budget_and_to_drain():
    job, config = manifest("rayjob"), config_for("rayjob")
    assert job.spec.active_deadline_seconds > config.budget.max_wall_s
    variables = yaml.safe_load(job.spec.runtime_env_yaml)["env_vars"]
    assert int(variables[STOP_WAIT]) >= config.cluster.drain_s + STOP_MARGIN_S


@pytest.mark.parametrize("name", SIZED_FOR)
def test_volumes_that_are_named_are_claimed(name):
    claims = {each.metadata.name: each for each in parsed(DEPLOY / "kuberay" / "volumes.yaml")}
    used = {
        volume.persistent_volume_claim.claim_name
        for _, pod in pods(cluster_of(manifest(name)))
        for volume in pod.volumes
        if volume.persistent_volume_claim is not None
    }
    assert used == claims.keys()
    assert all(isinstance(claim, VolumeClaim) for claim in claims.values())
    assert claims["adrs-journals"].spec.access_modes == ["ReadWriteOnce"], "a journal has one writer and a local disk"


@pytest.mark.parametrize("name", SIZED_FOR)
def test_the_ray_is_the_one_that_this_is_tested_with(name):
    assert cluster_of(manifest(name)).ray_version == ray.__version__
