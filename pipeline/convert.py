"""Convert published weights to the pipeline's checkpoints, and write the weights that ship.

    python -m pipeline.convert mannequin best_depth_Ours_Bilinear_inc_3_net_G.pth models/paper/depth.pt
    python -m pipeline.convert stm STM_weights.pth models/paper/stm.pt
    python -m pipeline.convert ship models/lite/dstm.pt weights/dstm-lite.safetensors

`mannequin`: the single-view depth network of the MannequinChallenge release. `stm`: STM's release, the network of the
paper's Table 2 without any of its columns. `ship`: a trained D-STM as a small file in half precision, with its
configuration in it. All weights must fit the network exactly.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.files import check_output_file
from pipeline.core.runtime import log, run_main
from pipeline.dstm.checkpoint import KIND, load_dstm
from pipeline.dstm.config import to_plain
from pipeline.dstm.safetensors_file import SUFFIX, save_safetensors
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


def convert_ship(source: Path, target: Path) -> None:
    """Write a trained D-STM in half precision, as weights ship.

    Args:
        source: a checkpoint of pretrain or train.
        target: the `.safetensors` file to write; `pipeline.segment` takes it as `--weights`.

    Raises:
        UserError: `source` is missing or damaged, or `target` has another suffix.
    """
    if target.suffix != SUFFIX:
        raise UserError(f"{target} is the target; expected a name that ends in {SUFFIX}; correct it")
    save_safetensors(target, load_dstm(source, torch.device("cpu")))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    log(f"{target}: D-STM of {source.name}, {target.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


CONVERSIONS = {"mannequin": convert_mannequin, "stm": convert_stm, "ship": convert_ship}


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
