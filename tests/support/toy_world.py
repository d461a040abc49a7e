"""The world of `params.yaml`, and one small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.params import build
from pipeline.sample.config import DavisCounts, KindCounts, MannequinCounts, StillCounts, WorldConfig, YouTubeVosCounts


def world_section() -> dict[str, Any]:
    settings = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text())
    section: dict[str, Any] = settings["world"]
    return section


WORLD = build(WorldConfig, world_section(), "world")
ONE = KindCounts(single=1, multi=1, lookalike=1)
NONE = KindCounts(single=0, multi=0, lookalike=0)
TOY = replace(
    WORLD,
    frame_height=72,
    frame_width=128,
    min_pixels=20,
    davis=DavisCounts(train=ONE, val=ONE, frames=3),
    youtubevos=YouTubeVosCounts(train=KindCounts(single=1, multi=3, lookalike=2), frames=16, step=1.5, late_share=0.6),
    stills=StillCounts(msra10k=2, coco=12, voc=4),
    mannequin=MannequinCounts(train=ONE, val=ONE, train_frames=2, val_frames=3, step=3.0),
)
