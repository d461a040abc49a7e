"""Follow the objects of the example clip; run `python -m examples.segment` from the root of the repository."""

from pathlib import Path

from pipeline.core.images import object_ids
from pipeline.footage.drawn_masks import read_mask
from pipeline.footage.footage import open_footage
from pipeline.segment import open_segmenter

frames = (shot.rgb for shot in open_footage("examples/clip.mp4").shots())  # uint8 H,W,3 RGB
for t, mask in enumerate(open_segmenter().propagate(frames, read_mask(Path("examples/mask.png")))):  # uint8 H,W ids
    print(f"frame {t}:", ", ".join(f"object {i} has {(mask == i).sum()} pixels" for i in object_ids(mask)))
