"""Render the sample, in archives with the names and layouts of the published ones.

Layered 2.5-D scenes with known masks and depth; one folder per data set, with a manifest. In a profile that works on
other data (`render: false`) every manifest is empty. The manifest of `challenge` is always empty: the sample has no
videos whose annotations are withheld.

Reads: nothing
Writes: data/${profile}/embedded
Params: world, profiles.${profile}.render
Run: python -m pipeline.render
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.core.files import output_folder, write_json
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, run_main
from pipeline.sample.config import WorldConfig
from pipeline.sample.process_pool import WorkerPool
from pipeline.sample.stills import write_coco, write_msra10k, write_voc
from pipeline.sample.videos import write_davis, write_mannequin, write_youtubevos

DATASETS = ("davis", "youtubevos", "msra10k", "coco", "voc", "mannequin", "challenge")


def run(world: WorldConfig | None, embedded: Path, workers: int) -> None:
    """Render all datasets.

    Args:
        world: the parameters of the sample; None: nothing is rendered, the manifests are empty.
        embedded: the folder to write, with one folder for each data set.
        workers: number of processes; it does not change the result.
    """
    with output_folder(embedded) as folder:
        for dataset in DATASETS:
            (folder / dataset).mkdir()
        if world is not None:
            _render(world, folder, workers)
        for dataset in DATASETS:
            archives = sorted((folder / dataset).iterdir())
            write_json(folder / dataset / "manifest.json", {"files": [_describe(path) for path in archives]})
            log(f"{dataset}: {len(archives)} archives, {sum(p.stat().st_size for p in archives) / 1e6:.1f} MB")


def _render(world: WorldConfig, folder: Path, workers: int) -> None:
    with WorkerPool(workers) as pool:
        write_davis(world, folder / "davis" / "DAVIS-2017-trainval-480p.zip", pool)
        write_youtubevos(world, folder / "youtubevos" / "train.zip", pool)
        write_msra10k(world, folder / "msra10k" / "MSRA10K_Imgs_GT.zip", pool)
        coco = folder / "coco"
        write_coco(world, coco / "train2017.zip", coco / "annotations_trainval2017.zip", pool)
        write_voc(world, folder / "voc" / "VOCtrainval_11-May-2012.tar", pool)
        write_mannequin(world, folder / "mannequin" / "mannequin.zip", pool)


def _describe(path: Path) -> dict[str, str | int]:
    """Name, length and sha256 of a file."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256}


def main() -> None:
    """Run the stage with the settings of `params.yaml`."""
    from pipeline.settings import load_settings

    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    world = settings.world if settings.profile_params.render else None
    run(world, layout.embedded("davis").parent, settings.runtime.workers)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
