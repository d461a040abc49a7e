"""The model card: what the stage reads for it, and what it says about data, licences and failures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from pipeline import card
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.reporting.card import TrainingData, _data
from pipeline.reporting.licences import RENDERED, TERMS, terms_of
from pipeline.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
HEADER = "sequence,object,kind,J-mean,F-mean,J&F,copy_first_J&F"
ROWS = ("single-0,1,single,0.9,1.0,0.95,0.3", "multi-0,1,multi,0.1,0.2,0.15,0.25", "multi-0,2,multi,0.5,0.5,0.5,0.25")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path, "sample")
    save_checkpoint(found.model("dstm"), "dstm", {"any": 1}, {"a": torch.zeros(3, 4), "b": torch.zeros(5)})
    for name in ("davis", "youtubevos", "msra10k", "coco", "voc", "mannequin"):
        files = [] if name == "voc" else [{"name": f"{name}.zip", "bytes": 1234567, "sha256": f"{name}-digest"}]
        found.raw(name).mkdir(parents=True)
        (found.raw(name) / "manifest.json").write_text(json.dumps({"files": files}))
    pictures = found.metrics / "report" / "pictures"
    pictures.mkdir(parents=True)
    (pictures / "worst.jpg").write_bytes(b"jpeg")
    (found.metrics / "per_object.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    (found.metrics / "depth.json").write_text('{"weights": "trained", "si_rmse": 0.16, "static_change": {"x": 1}}')
    return found


def test_the_card_of_a_run(layout: Layout) -> None:
    card.run(load_settings(ROOT / "params.yaml"), layout)
    folder = layout.model("dstm").parent
    text = (folder / "CARD.md").read_text()
    content = layout.model("dstm").read_bytes()
    for expected in (
        f"SHA-256 {hashlib.sha256(content).hexdigest()}",
        f"git log -S{hashlib.md5(content).hexdigest()} -- dvc.lock",
        "| weights | 17 |",
        "`model.depth: true`",
        "| davis | `embedded` | davis.zip (1,234,567 bytes) | davis-digest | rendered sample: made by this project",
        "All of it may be used for any purpose.",
        "| all | 2 | 3 | 0.5333 |",  # (0.95 + 0.15 + 0.5) / 3
        "Depth network: weights trained, si_rmse 0.16.",
        "1 of 3 objects score less than the first mask copied",
        "(card/worst.jpg)",
        "key_channels: 64",
    ):
        assert expected in text, expected
    assert "voc" not in text.partition("## Metrics")[0], "switched off"
    assert text.index("| multi-0 | multi | 0.100 |") < text.index("| single-0 | single | 0.900 |")
    assert (folder / "card" / "worst.jpg").read_bytes() == b"jpeg"
    card.run(load_settings(ROOT / "params.yaml"), layout)
    assert (folder / "CARD.md").read_text() == text, "two runs give the same bytes"


def test_a_split_that_is_not_scored(layout: Layout) -> None:
    (layout.metrics / "per_object.csv").write_text(HEADER + "\n")
    (layout.metrics / "report" / "pictures" / "worst.jpg").unlink()
    card.run(load_settings(ROOT / "params.yaml"), layout)
    text = (layout.model("dstm").parent / "CARD.md").read_text()
    assert "Not scored" in text and "Unknown, because nothing was scored." in text
    assert (layout.model("dstm").parent / "card" / "EMPTY.txt").is_file()


def test_without_a_network(layout: Layout) -> None:
    layout.model("dstm").unlink()
    with pytest.raises(UserError, match=r"dstm\.pt does not exist; expected the trained network; run the train stage"):
        card.run(load_settings(ROOT / "params.yaml"), layout)


def test_terms() -> None:
    assert terms_of("youtubevos", "embedded") == RENDERED
    assert terms_of("youtubevos", "published") == TERMS["youtubevos"] and not TERMS["youtubevos"].free
    assert "your own" in terms_of("davis", "/data/mine").called
    files: list[dict[str, str | int]] = [{"name": "train.tar", "bytes": 1, "sha256": "x"}]
    lines = _data([TrainingData("youtubevos", "published", files, terms_of("youtubevos", "published"))])
    assert "non-commercial research only" in lines[2]
    own: list[dict[str, str | int]] = [{"name": "mine", "fingerprint": "f"}]
    line = _data([TrainingData("davis", "/data/mine", own, terms_of("davis", "/data/mine"))])[2]
    assert line.startswith(
        "| davis | `/data/mine` | mine, read in place | fingerprint f | DAVIS 2017 or your own: if it is"
    )
    assert lines[-1].startswith("**Not clearly free for commercial use: youtubevos.**")
