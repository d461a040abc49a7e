"""Get the published archives of one data set: downloaded or found on this machine, and verified; not extracted.

A source is the rendered sample, the publisher's URL, a path or any other URL (`profiles.<p>.data`). Downloads are kept
in `data/store`, which is not an output of any stage, and linked from there; they can be interrupted at any time and
continue in the next run. A path is read where it is: the output only says what it contains. DVC does not notice if a
file changes under the same path; `dvc repro -f download@<dataset>` reads it again.

At the end some of the files are examined; `python -m pipeline.doctor <dataset>` examines all.

Reads: data/${profile}/embedded/${item}
Writes: data/${profile}/raw/${item}, metrics/data/${item}.json
Params: profiles.${profile}.data.${item}
Run: python -m pipeline.download davis
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, write_json
from pipeline.core.layout import Layout
from pipeline.core.manifest import NAME
from pipeline.core.runtime import log, run_main
from pipeline.diagnosis.examine import examine
from pipeline.diagnosis.findings import table
from pipeline.settings import load_settings
from pipeline.sources.bring import bring
from pipeline.sources.catalog import CATALOG, archives_of
from pipeline.sources.config import DataConfig
from pipeline.sources.requests import requests_of
from pipeline.sources.store import Store, link_or_copy

_LOOKED_AT = 200  # videos of a split, or images, that are examined at the end


def run(
    dataset: str, data: DataConfig, where: str, embedded: Path, raw: Path, store: Store, base: Path | None = None
) -> None:
    """Get one data set.

    Args:
        dataset: its name.
        data: section `data` of the profile.
        where: path of that section in params.yaml, for messages.
        embedded: folder of the rendered sample's archives and their manifest.
        raw: folder to write: `manifest.json` and links to the archives under their published names, as far as they are
            not the user's own. The manifest is `{"files": [...]}` with an entry for each archive: `name`, `bytes` and
            `sha256`; or, for what is read where the user has it, `name` and `fingerprint`. No file for `none`.
        store: keeps downloads.
        base: the folder for relative paths; the working directory if None.

    Raises:
        UserError: the source is missing, damaged, not the expected one, or does not fit on the disk.
    """
    requests = requests_of(dataset, data, where)
    if requests[0].value == "none":
        with output_folder(raw) as folder:
            write_json(folder / NAME, {"files": []})
        log(f"{dataset}: no source ({requests[0].key} is none); later stages leave it out")
        return
    found = [bring(request, embedded, store, base or Path.cwd()) for request in requests]
    with output_folder(raw) as folder:
        for brought, request in zip(found, requests):
            entry = brought.entry
            if brought.file is not None:
                link_or_copy(brought.file, folder / str(entry["name"]))
            known = f"sha256 {str(entry['sha256'])[:12]}" if "sha256" in entry else "read where it is"
            log(f"{dataset}: {entry['name']}, {known}, from {request.value}")
        entries = sorted((brought.entry for brought in found), key=lambda entry: str(entry["name"]))
        write_json(folder / NAME, {"files": entries})


def main() -> None:
    """Get the data set named on the command line from the source in params.yaml."""
    if len(sys.argv) != 2:
        raise UserError(f"{len(sys.argv) - 1} arguments given; expected one data set: {', '.join(CATALOG)}")
    dataset = sys.argv[1]
    archives_of(dataset)
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    run(
        dataset,
        settings.profile_params.data,
        f"profiles.{settings.profile}.data",
        layout.embedded(dataset),
        layout.raw(dataset),
        Store(layout.store),
    )
    diagnosis = examine(dataset, layout.raw(dataset), _LOOKED_AT)
    for line in table([diagnosis]):
        log(line)
    write_json(layout.metrics / "data" / f"{dataset}.json", diagnosis.as_metrics())


if __name__ == "__main__":
    raise SystemExit(run_main(main))
