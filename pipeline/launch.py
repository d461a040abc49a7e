"""Start a stage in one process, or in several through torchrun, as `runtime.processes` says.

The number of processes is not a parameter of a stage: the global batch is split among them, so the result is the same.

Run: python -m pipeline.launch {pipeline.depth DATASET,pipeline.pretrain,pipeline.train,pipeline.infer}
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pipeline.core.errors import UserError
from pipeline.core.runtime import run_main
from pipeline.settings import load_settings

STAGES = ("pipeline.depth", "pipeline.pretrain", "pipeline.train", "pipeline.infer")


def command(stage: str, processes: int, arguments: Sequence[str] = ()) -> list[str]:
    """The command line that runs `stage`.

    Raises:
        UserError: there is no such stage.
    """
    if stage not in STAGES:
        raise UserError(f"{stage!r} cannot be launched; expected one of {', '.join(STAGES)}")
    if processes == 1:
        return [sys.executable, "-m", stage, *arguments]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, "-m", stage, *arguments]


def main() -> None:
    """Replace this process by the stage's."""
    if len(sys.argv) < 2:
        raise UserError(f"found no argument; expected a stage of {', '.join(STAGES)}, and its own arguments")
    arguments = command(sys.argv[1], load_settings().runtime.processes, sys.argv[2:])
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
