"""What a run's numbers depend on besides its configuration: versions, machine, commit, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "faiss-cpu", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions, machine, commit and command of this process."""
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "command": shlex.join(["collapse-lab", *sys.argv[1:]]),
        "start": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def device_name(device: torch.device) -> str:
    """The name of a GPU, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, marked where files differ; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        if subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True).returncode:
            return None
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
