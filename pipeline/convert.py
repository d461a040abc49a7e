"""Bring published weights into the pipeline's checkpoints.

    python -m pipeline.convert mannequin best_depth_Ours_Bilinear_inc_3_net_G.pth models/paper/depth.pt
    python -m pipeline.convert stm STM_weights.pth models/paper/stm.pt

`mannequin`: the single-view depth network of the MannequinChallenge release. `stm`: STM's release, the network of the
paper's Table 2 without any of its columns. Weights are held to the network strictly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.files import check_output_file
from pipeline.core.runtime import log, run_main
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.hourglass.checkpoint import read_published, save_hourglass
from pipeline.pretrained import stm


def convert_mannequin(source: Path, target: Path) -> None:
    """Write a MannequinChallenge checkpoint as one of ours.

    Args:
        source: The published `*_net_G.pth`.
        target: The checkpoint to write; `train_depth.checkpoint` takes its path.

    Raises:
        UserError: `source` is missing, damaged or of another network.
    """
    model = read_published(source)
    save_hourglass(target, model)
    log(f"{target}: depth network of {source.name}, {sum(p.numel() for p in model.parameters())} weights")


def convert_stm(source: Path, target: Path) -> None:
    """Write the weights of the STM release as a D-STM checkpoint.

    Args:
        source: The published `STM_weights.pth`.
        target: The checkpoint to write; `pipeline.segment` takes it as `--weights`.

    Raises:
        UserError: `source` is missing, damaged or of another network.
    """
    network = stm.read_published(source)
    save_checkpoint(target, KIND, to_plain(network.switches, network.config), network.state_dict())
    log(f"{target}: STM of {source.name}, {sum(t.numel() for t in network.state_dict().values())} weights")


CONVERSIONS = {"mannequin": convert_mannequin, "stm": convert_stm}


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.convert", description="Convert published weights.")
    parser.add_argument("kind", choices=sorted(CONVERSIONS), help="what the file is")
    parser.add_argument("source", type=Path, help="the published file")
    parser.add_argument("target", type=Path, help="the checkpoint to write")
    arguments = parser.parse_args()
    check_output_file(arguments.target, "target")
    CONVERSIONS[arguments.kind](arguments.source, arguments.target)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
