"""The fields of KubeRay's RayJob and RayCluster (ray.io/v1) and of pods that our manifests use; any other is an error.

Names, types and enumerations as in KubeRay's `ray-operator/apis/ray/v1` and in Kubernetes' core/v1.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTP]|[KMGTP]i)?")
_FACTORS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", 1)
}


def amount(quantity: str) -> float:
    """The number that a Kubernetes quantity stands for. Raises ValueError for what is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity, such as 500m, 8 or 32Gi")
    return float(match[1]) * _FACTORS.get(match[2] or "", 1.0)


def _is_amount(quantity: str) -> str:
    amount(quantity)
    return quantity


Quantity = Annotated[str, AfterValidator(_is_amount)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(Strict):
    name: Name
    labels: dict[str, str] = {}


class Ports(Strict):
    container_port: Annotated[int, Field(ge=1, le=65535)]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,15}$")]


class Variable(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str


class Resources(Strict):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault", "Unconfined"]


class PodSecurity(Strict):
    run_as_non_root: bool
    run_as_user: Annotated[int, Field(ge=1)]
    run_as_group: int
    fs_group: int
    fs_group_change_policy: Literal["OnRootMismatch", "Always"]
    seccomp_profile: SeccompProfile


class Capabilities(Strict):
    drop: list[str]


class ContainerSecurity(Strict):
    allow_privilege_escalation: bool
    capabilities: Capabilities


class Exec(Strict):
    command: list[str]


class Hook(Strict):
    exec: Exec


class Lifecycle(Strict):
    pre_stop: Hook


class Mount(Strict):
    name: Name
    mount_path: Annotated[str, Field(pattern="^/")]
    read_only: bool = False


class Container(Strict):
    name: Name
    image: str
    ports: list[Ports]
    env: list[Variable]
    resources: Resources
    security_context: ContainerSecurity
    lifecycle: Lifecycle | None = None
    volume_mounts: list[Mount]


class EmptyDir(Strict):
    medium: Literal["", "Memory"]
    size_limit: Quantity


class ClaimReference(Strict):
    claim_name: Name
    read_only: bool = False


class ConfigMapReference(Strict):
    name: Name


class Volume(Strict):
    name: Name
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: ClaimReference | None = None
    config_map: ConfigMapReference | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Volume:
        if sum(source is not None for source in (self.empty_dir, self.persistent_volume_claim, self.config_map)) != 1:
            raise ValueError(f"volume {self.name} needs exactly one source")
        return self


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    termination_grace_period_seconds: Annotated[int, Field(ge=0)]
    tolerations: list[Toleration] = []
    security_context: PodSecurity
    containers: list[Container]
    volumes: list[Volume]

    @model_validator(mode="after")
    def _mounts_are_volumes(self) -> PodSpec:
        named = {volume.name for volume in self.volumes}
        mounted = {mount.name for container in self.containers for mount in container.volume_mounts}
        if named != mounted:
            raise ValueError(f"volumes {sorted(named)} and mounts {sorted(mounted)} differ")
        return self


class PodTemplate(Strict):
    spec: PodSpec


class HeadGroup(Strict):
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    group_name: Name
    replicas: Annotated[int, Field(ge=0)]
    min_replicas: Annotated[int, Field(ge=0)]
    max_replicas: Annotated[int, Field(ge=0)]
    ray_start_params: dict[str, str]
    template: PodTemplate


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]


class ClusterSpec(Strict):
    ray_version: str
    enable_in_tree_autoscaling: bool
    auth_options: AuthOptions | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class JobSpec(Strict):
    suspend: bool = False
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)]
    active_deadline_seconds: Annotated[int, Field(ge=1)]
    backoff_limit: Annotated[int, Field(ge=0)]
    submission_mode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    entrypoint: str
    runtime_env_yaml: Annotated[str, Field(alias="runtimeEnvYAML")]
    ray_cluster_spec: ClusterSpec

    @model_validator(mode="after")
    def _as_the_operator_checks(self) -> JobSpec:
        if self.suspend and not self.shutdown_after_job_finishes:
            raise ValueError("a job that can be suspended must shut its cluster down when it ends")
        return self


class RayJob(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class RayCluster(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class ClaimResources(Strict):
    requests: dict[Literal["storage"], Quantity]


class ClaimSpec(Strict):
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOncePod"]]
    resources: ClaimResources


class VolumeClaim(Strict):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


KINDS: dict[str, type[Strict]] = {
    "RayJob": RayJob,
    "RayCluster": RayCluster,
    "PersistentVolumeClaim": VolumeClaim,
}
