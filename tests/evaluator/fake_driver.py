"""A made-up NVIDIA driver: plain files where its nodes and its tellings would be. Nothing of it can compute."""

from __future__ import annotations

from pathlib import Path

UUIDS = ("GPU-aaaaaaaa-0000-1111-2222-333333333333", "GPU-bbbbbbbb-0000-1111-2222-333333333333")


def write_driver(root: Path, uuids: tuple[str, ...] = UUIDS, minors: tuple[int, ...] = (1, 0)) -> Path:
    """GPUs in the order of the bus, and the minors of their nodes, which may be in another order."""
    (root / "dev/nvidia-caps").mkdir(parents=True)
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", *(f"nvidia{n}" for n in minors)):
        (root / "dev" / name).write_text("node")
    for place, (uuid, minor) in enumerate(zip(uuids, minors, strict=True)):
        bus = f"0000:{place + 1:02x}:00.0"
        told = root / "proc/driver/nvidia/gpus" / bus
        told.mkdir(parents=True)
        lines = f"Model: \t\t Made up\nIRQ:   \t\t 35\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        (told / "information").write_text(lines)
        (root / "sys/bus/pci/devices" / bus).mkdir(parents=True)
    (root / "proc/driver/nvidia/params").write_text("ModifyDeviceFiles: 1\n")
    return root


def cut_into_instances(root: Path, minor: int = 0) -> None:
    """Give a GPU instances (MIG), and the nodes by which instances are made and watched."""
    capabilities = root / "proc/driver/nvidia/capabilities"
    places = {f"gpu{minor}/mig/gi1/access": 12, f"gpu{minor}/mig/gi1/ci0/access": 13, "mig/config": 1, "mig/monitor": 2}
    for place, number in places.items():
        path = capabilities / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
        (root / f"dev/nvidia-caps/nvidia-cap{number}").write_text("node")
