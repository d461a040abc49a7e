"""How long each stage took on this machine and how much memory it used, for plans and for the report page.

These are kept beside the resume states and not in any output, since outputs contain no durations.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.core.files import write_json


@dataclass(frozen=True)
class Usage:
    """Time and memory of a stage's last run.

    Attributes:
        seconds: wall time, without starting Python.
        cpu_seconds: of all its processes.
        memory_mib: peak of its largest process, in MiB.
    """

    seconds: float
    cpu_seconds: float
    memory_mib: float


def record_usage(seconds: float) -> None:
    """Write the usage of this process if DVC runs it as a stage (`DVC_STAGE`); the first of several processes does.

    Args:
        seconds: since the stage's start.
    """
    stage, root = os.environ.get("DVC_STAGE"), os.environ.get("DVC_ROOT")
    if not stage or not root or os.environ.get("RANK", "0") != "0":
        return
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    usage = Usage(
        seconds=round(seconds, 1),
        cpu_seconds=round(own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime, 1),
        memory_mib=round(max(own.ru_maxrss, others.ru_maxrss) / unit, 1),
    )
    write_json(_folder(Path(root)) / f"{stage.replace('/', '_')}.json", asdict(usage))


def read_usage(root: Path) -> dict[str, Usage]:
    """Stage name -> usage of its last run on this machine; empty if none has run.

    Args:
        root: the main checkout.
    """
    paths = sorted(_folder(root).glob("*.json"))
    return {path.stem: Usage(**json.loads(path.read_text())) for path in paths}


def _folder(root: Path) -> Path:
    return root / ".scratch" / "usage"
