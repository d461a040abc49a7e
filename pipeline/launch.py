"""Start a stage in one process, or in several through torchrun, on one machine or several.

The number of processes is not a parameter of a stage: the global batch is split among them, so the result is the same.
`runtime.processes` are started on each of `runtime.machines`, which meet at `runtime.rendezvous`. torchrun's own
environment variables PET_NNODES and PET_RDZV_ENDPOINT replace the last two, for a cluster that names the machines when
a job starts; see docs/training.md.

Run: python -m pipeline.launch {pipeline.depth DATASET,pipeline.pretrain,pipeline.train,pipeline.infer}
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from pipeline.core.errors import UserError
from pipeline.core.runtime import run_main
from pipeline.settings import RuntimeConfig, load_settings

STAGES = ("pipeline.depth", "pipeline.pretrain", "pipeline.train", "pipeline.infer")


def command(
    stage: str, runtime: RuntimeConfig, environment: Mapping[str, str], arguments: Sequence[str] = ()
) -> list[str]:
    """The command line that runs `stage`.

    Args:
        stage: its module.
        runtime: processes and machines.
        environment: variables of this process; torchrun's own ones come first.
        arguments: of the stage.

    Raises:
        UserError: there is no such stage, or the machines cannot find each other.
    """
    if stage not in STAGES:
        raise UserError(f"{stage!r} cannot be launched; expected one of {', '.join(STAGES)}")
    machines = environment.get("PET_NNODES", str(runtime.machines))
    if not re.fullmatch(r"[1-9]\d*", machines):
        raise UserError(f"PET_NNODES is {machines!r}; expected the number of machines; correct the environment")
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={runtime.processes}"]
    program = ["-m", stage, *arguments]
    if machines == "1":
        return [sys.executable, *program] if runtime.processes == 1 else [*torchrun, "--standalone", *program]
    place = environment.get("PET_RDZV_ENDPOINT", runtime.rendezvous)
    if not re.fullmatch(r"[^\s:]+:\d+", place):
        raise UserError(
            f"{machines} machines meet at {place!r}; expected host:port of one of them; correct runtime.rendezvous or "
            "PET_RDZV_ENDPOINT"
        )
    meeting = [f"--nnodes={machines}", "--rdzv-backend=c10d", f"--rdzv-endpoint={place}", f"--rdzv-id={stage}"]
    return [*torchrun, *meeting, *program]


def main() -> None:
    """Replace this process by the stage's."""
    if len(sys.argv) < 2:
        raise UserError(f"found no argument; expected a stage of {', '.join(STAGES)}, and its own arguments")
    arguments = command(sys.argv[1], load_settings().runtime, os.environ, sys.argv[2:])
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
