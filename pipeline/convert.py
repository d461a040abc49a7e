"""Bring published weights into the pipeline's checkpoints.

    python -m pipeline.convert mannequin best_depth_Ours_Bilinear_inc_3_net_G.pth models/paper/depth.pt

`mannequin`: the single-view depth network of the MannequinChallenge release. Weights are held to the network strictly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.runtime import log, run_main
from pipeline.hourglass.checkpoint import read_published, save_hourglass


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


CONVERSIONS = {"mannequin": convert_mannequin}


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.convert", description="Convert published weights.")
    parser.add_argument("kind", choices=sorted(CONVERSIONS), help="what the file is")
    parser.add_argument("source", type=Path, help="the published file")
    parser.add_argument("target", type=Path, help="the checkpoint to write")
    arguments = parser.parse_args()
    CONVERSIONS[arguments.kind](arguments.source, arguments.target)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
