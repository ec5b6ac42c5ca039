"""What a jailed process must open to use the GPUs of its slot, and nothing beyond (source: the NVIDIA driver's README,
its /proc/driver/nvidia, and the kernel's devices.txt).

CUDA talks to the driver through `nvidiactl` and `nvidia-uvm` and through one node per GPU, `nvidia<minor>`; instances
of a GPU that is cut (MIG) have nodes of their own in `nvidia-caps`. Within a jail that has the node of GPU 3 alone,
CUDA would call it number 0: devices are therefore named by their UUIDs wherever the driver tells them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import UsageError

ROOT = Path("/")
"""Where the machine's files begin; tests put a made-up driver elsewhere."""
_CONTROL = ("dev/nvidiactl", "dev/nvidia-uvm")
_DRIVER = "proc/driver/nvidia"
_READ_AT_START = (_DRIVER, "proc/devices", "proc/modules", "proc/sys/vm/mmap_min_addr", "sys/devices/system/node",
                  "sys/devices/system/memory", "usr/local/nvidia", "usr/local/cuda", "opt/cuda")  # fmt: skip
"""What CUDA and its libraries read when a process begins with them, where it is there."""


@dataclass(frozen=True)
class DeviceAccess:
    """What a slot's processes get beyond the jail's other files."""

    visible: str
    """CUDA_VISIBLE_DEVICES."""
    nodes: tuple[str, ...] = ()
    """Opened for reading, writing and ioctl."""
    readable: tuple[str, ...] = ()


NO_DEVICES = DeviceAccess("")


@dataclass(frozen=True)
class _Gpu:
    bus: str
    uuid: str
    """Empty until the GPU was first used."""
    minor: int


def device_access(devices: str) -> DeviceAccess:
    """What is opened for `devices`, as CUDA_VISIBLE_DEVICES names them in the order of the bus.

    Of a machine without the driver nothing is: programs then find no GPU, whatever is visible. Where the driver does
    not tell which node is whose (or of instances, whose parent it is), the nodes of all its GPUs are opened, and the
    names stay as they are. Raises UsageError when the driver is there and a device is not.
    """
    names = [name for name in devices.split(",") if name]
    control = [str(ROOT / name) for name in _CONTROL if (ROOT / name).exists()]
    if not names or not control:
        return DeviceAccess(devices)
    if len(control) < len(_CONTROL):
        raise UsageError(
            f"{ROOT / _CONTROL[1]} is not there, which programs on a GPU need: load the module nvidia-uvm (as any CUDA "
            "program started by root does)"
        )
    gpus = _gpus()
    known = _chosen(names, gpus)
    if known is None:
        known, visible = gpus, devices
        nodes = sorted(map(str, (ROOT / "dev").glob("nvidia[0-9]*")))
    else:
        visible = ",".join(gpu.uuid for gpu in known)
        nodes = [str(_node(gpu.minor)) for gpu in known]
    if any(name.startswith("MIG-") for name in names):
        nodes += _instance_nodes()
    readable = [str(ROOT / name) for name in _READ_AT_START if (ROOT / name).exists()]
    readable += [str(folder.resolve()) for gpu in known if (folder := ROOT / "sys/bus/pci/devices" / gpu.bus).exists()]
    return DeviceAccess(visible, tuple(dict.fromkeys((*control, *nodes))), tuple(dict.fromkeys(readable)))


def _chosen(names: Sequence[str], gpus: Sequence[_Gpu]) -> list[_Gpu] | None:
    """The GPUs of the names; None when the driver tells too little. Raises UsageError for one that is not there."""
    if not gpus or not all(gpu.uuid for gpu in gpus) or any(name.startswith("MIG-") for name in names):
        return None
    found = []
    for name in names:
        if name.isdigit():
            matching = gpus[int(name) : int(name) + 1]
        else:  # CUDA takes any beginning of a UUID
            matching = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
        if not matching:
            raise UsageError(f"GPU {name} is not among the {len(gpus)} that {ROOT / _DRIVER / 'gpus'} tells of")
        found.append(matching[0])
    return found


def _gpus() -> list[_Gpu]:
    """What the driver tells of the GPUs that have a node here, by their place on the bus."""
    found = []
    for folder in sorted((ROOT / _DRIVER / "gpus").glob("*")):
        try:
            text = (folder / "information").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9A-Fa-f-]+)\s*$", text, re.MULTILINE)
        minor = re.search(r"^Device Minor:\s*(\d{1,4})\s*$", text, re.MULTILINE)
        if minor and _node(int(minor[1])).exists():
            found.append(_Gpu(folder.name, uuid[1] if uuid else "", int(minor[1])))
    return found


def _node(minor: int) -> Path:
    return ROOT / f"dev/nvidia{minor}"


def _instance_nodes() -> list[str]:
    """Those that open an instance to programs; not the ones by which instances are made and watched."""
    capabilities = ROOT / _DRIVER / "capabilities"
    nodes = []
    for access in sorted(capabilities.glob("gpu*/mig/**/access")):
        try:
            minor = re.search(r"^DeviceFileMinor:\s*(\d+)\s*$", access.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if minor and (node := ROOT / f"dev/nvidia-caps/nvidia-cap{minor[1]}").exists():
            nodes.append(str(node))
    return nodes
