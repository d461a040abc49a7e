"""Write the model card of the trained network: its data, parameters, metrics and known failures.

Reads: models/${profile}/dstm.pt, data/${profile}/raw/davis, data/${profile}/raw/youtubevos,
    data/${profile}/raw/msra10k, data/${profile}/raw/coco, data/${profile}/raw/voc, data/${profile}/raw/mannequin,
    metrics/per_object.csv, metrics/depth.json, metrics/report/pictures
Writes: models/${profile}/CARD.md, models/${profile}/card
Params: seed, model, loss, infer, shared, profiles.${profile}
Run: python -m pipeline.card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, say_why_empty, write_text
from pipeline.core.layout import Layout
from pipeline.core.manifest import read_manifest
from pipeline.core.runtime import log, run_main
from pipeline.reporting.card import CardContent, TrainingData, write_card
from pipeline.reporting.licences import terms_of
from pipeline.reporting.tables import read_per_object
from pipeline.settings import Settings, load_settings

_DATA = ("davis", "youtubevos", "msra10k", "coco", "voc", "mannequin")
_PICTURES = ("worst.jpg", "lookalike.jpg")  # where the network is known to fail; of those that the report has made
_SECTIONS = ("network", "pretrain", "train", "hourglass", "train_depth", "depth", "infer")


def run(settings: Settings, layout: Layout) -> None:
    """Write the card and its pictures.

    Args:
        settings: all of params.yaml.
        layout: paths of the profile.

    Raises:
        UserError: the checkpoint, a manifest, or the metrics are missing.
    """
    checkpoint = layout.model("dstm")
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist; expected the trained network; run the train stage first")
    content = checkpoint.read_bytes()
    state = load_checkpoint(checkpoint, "dstm")["state_dict"]
    folder = checkpoint.parent / "card"
    with output_folder(folder) as pictures:
        found = [name for name in _PICTURES if (layout.metrics / "report" / "pictures" / name).is_file()]
        for name in found:
            (pictures / name).write_bytes((layout.metrics / "report" / "pictures" / name).read_bytes())
        if not found:
            say_why_empty(pictures, "the report has made no picture of a failure")
    card = CardContent(
        profile=layout.profile,
        sha256=hashlib.sha256(content).hexdigest(),
        md5=hashlib.md5(content).hexdigest(),  # the digest that DVC uses
        n_parameters=sum(value.numel() for value in state.values()),
        seed=settings.seed,
        switches={
            f"{name}.{key}": value
            for name in ("model", "loss", "infer")
            for key, value in asdict(getattr(settings, name)).items()
        },
        data=_training_data(settings, layout),
        parameters={name: _plain(asdict(getattr(settings.profile_params, name))) for name in _SECTIONS},
        split=settings.profile_params.infer.split,
        objects=read_per_object(layout.metrics / "per_object.csv"),
        depth=_depth(layout.metrics / "depth.json"),
        pictures=[f"card/{name}" for name in found],
    )
    write_text(checkpoint.parent / "CARD.md", write_card(card))
    log(f"wrote {checkpoint.parent / 'CARD.md'} with {len(found)} pictures")


def _training_data(settings: Settings, layout: Layout) -> list[TrainingData]:
    found = []
    for name in _DATA:
        files = read_manifest(layout.raw(name))
        if files:
            source: Any = getattr(settings.profile_params.data, name)
            text = source if isinstance(source, str) else source.images
            found.append(TrainingData(name, text, files, terms_of(name, text)))
    return found


def _depth(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the depth network's metrics; run the train_depth stage first")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML writes without a tag."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Write the card of the active profile."""
    settings = load_settings()
    run(settings, Layout(Path.cwd(), settings.profile))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
