"""Get the published archives of one data set: downloaded, copied or packed, and verified; not extracted.

A source is the rendered sample, the publisher's URL, a path or any other URL (`profiles.<p>.data`). Downloads can be
interrupted at any time and continue in the next run. DVC does not notice if a file changes under the same path or URL;
`dvc repro -f download@<dataset>` reads it again.

Reads: data/${profile}/embedded/${item}
Writes: data/${profile}/raw/${item}
Params: profiles.${profile}.data.${item}
Run: python -m pipeline.download davis
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, write_json
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, run_main
from pipeline.settings import load_settings
from pipeline.sources.catalog import CATALOG, HDF5_SUFFIXES, Published, archives_of
from pipeline.sources.checksums import Ledger, sha256_of
from pipeline.sources.config import CocoSource, DataConfig
from pipeline.sources.fetch import Fetched, fetch, forget
from pipeline.sources.local import check_archive, copy_checked, is_remote, link_or_copy, pack_folder, resolve

PLACES = "the path of an archive or extracted folder, or a URL"
WORDS = f"expected embedded, published, none, {PLACES}"


@dataclass(frozen=True)
class Request:
    """One archive to get.

    Attributes:
        key: its parameter, for messages.
        value: the parameter's value.
        expected: the archives that are accepted.
        words: the accepted values of the parameter, for messages.
    """

    key: str
    value: str
    expected: tuple[Published, ...]
    words: str = WORDS


@dataclass(frozen=True)
class _Download:
    """A verified download and its final name."""

    file: Fetched
    name: str


def requests_of(dataset: str, data: DataConfig, where: str) -> list[Request]:
    """The archives of a data set and the source of each.

    Args:
        dataset: its name.
        data: section `data` of the profile.
        where: path of that section in params.yaml, for messages.

    Raises:
        UserError: no such data set, only one of several archives is `none`, or a value that the data set does not
            accept.
    """
    archives = archives_of(dataset)
    if dataset == "challenge":
        return [_one_of(archives, data.challenge, f"{where}.challenge")]
    source: str | CocoSource = getattr(data, dataset)
    requests = []
    for published in archives:
        value = source if isinstance(source, str) else str(getattr(source, published.part))
        key = ".".join(filter(None, (where, dataset, published.part)))
        requests.append(Request(key, value, (published,)))
    absent = [r.key for r in requests if r.value == "none"]
    if absent and len(absent) < len(requests):
        raise UserError(
            f"{absent[0]} is none but the other archive of {dataset} is not; expected both or none; set both"
        )
    return requests


def _one_of(archives: tuple[Published, ...], value: str, key: str) -> Request:
    """The request for a data set that is one of several archives, given by name, path or URL."""
    named = {published.called: published for published in archives}
    words = f"expected none, {', '.join(p.called for p in archives if p.url)}, {PLACES}"
    if value in named:
        return Request(key, "published", (named[value],), words)
    if value in ("embedded", "published"):
        raise UserError(f"{key} is {value}; {words}; correct the parameter")
    return Request(key, value, archives, words)


def run(
    dataset: str, data: DataConfig, where: str, embedded: Path, raw: Path, scratch: Path, base: Path | None = None
) -> None:
    """Get one data set.

    Args:
        dataset: its name.
        data: section `data` of the profile.
        where: path of that section in params.yaml, for messages.
        embedded: folder of the rendered sample's archives and their manifest.
        raw: folder to write: the archives under their published names, and `manifest.json`
            (`{"files": [{"name", "bytes", "sha256"}]}`); for `none` a manifest without files.
        scratch: folder for downloads in progress; the recorded checksums are next to it.
        base: the folder for relative paths; the working directory if None.

    Raises:
        UserError: the source is missing, damaged, not the expected one, or does not fit on the disk.
    """
    requests = requests_of(dataset, data, where)
    if requests[0].value == "none":
        with output_folder(raw) as folder:
            write_json(folder / "manifest.json", {"files": []})
        log(f"{dataset}: no source ({requests[0].key} is none); later stages leave it out")
        return
    ledger = Ledger(scratch.parent / "checksums.json")
    downloads = {
        r.key: _download(r, scratch, ledger) for r in requests if _url(r)
    }  # first, because this may take hours
    files = []
    with output_folder(raw) as folder:
        for request in requests:
            if request.key in downloads:
                name, sha256 = downloads[request.key].name, downloads[request.key].file.sha256
                link_or_copy(downloads[request.key].file.path, folder / name)
            elif request.value == "embedded":
                name, sha256 = _copy_embedded(request, embedded, folder)
            else:
                name, sha256 = _bring_path(request, base or Path.cwd(), folder)
            n_bytes = (folder / name).stat().st_size
            files.append({"name": name, "bytes": n_bytes, "sha256": sha256})
            log(f"{dataset}: {name}, {n_bytes / 1e6:.1f} MB, sha256 {sha256[:12]}, from {request.value}")
        write_json(folder / "manifest.json", {"files": sorted(files, key=lambda file: str(file["name"]))})
    for download in downloads.values():
        forget(download.file.path)


def _url(request: Request) -> str | None:
    """The URL to download from, or None if the source is on this machine."""
    if request.value in ("embedded", "none"):
        return None
    if request.value == "published":
        (published,) = request.expected
        if published.url is None:
            raise UserError(f"{request.key} is {published.called or 'published'}, but {published.obtain}")
        return published.url
    return request.value if is_remote(request.value) else None


def _download(request: Request, scratch: Path, ledger: Ledger) -> _Download:
    url = _url(request)
    assert url is not None
    published = next((p for p in request.expected if p.url == url), None)
    if published is not None:
        fetched = fetch(url, scratch, ledger, published.n_bytes, published.checksum)
    else:
        fetched = fetch(url, scratch, ledger)
    with _forgotten_on_error(fetched):
        published, suffix = check_archive(fetched.path, request.expected)
    if not fetched.known:
        ledger.record(url, f"sha256:{fetched.sha256}")
        log(f"{request.key}: no checksum is known for {url}; recorded sha256 {fetched.sha256} for later downloads")
    return _Download(fetched, published.stored_name(suffix))


@contextmanager
def _forgotten_on_error(fetched: Fetched) -> Iterator[None]:
    """Remove a complete download that turns out to be another file, so that the next run does not use it again."""
    try:
        yield
    except UserError as error:
        forget(fetched.path)
        raise UserError(str(error).replace(str(fetched.path), "the download")) from None


def _copy_embedded(request: Request, embedded: Path, folder: Path) -> tuple[str, str]:
    """Copy an archive of the rendered sample and compare it with the checksum in its manifest."""
    manifest = embedded / "manifest.json"
    if not manifest.exists():
        raise UserError(f"{request.key} is embedded but {manifest} does not exist; run `dvc repro render` first")
    stem = Path(request.expected[0].name).stem
    files = [f for f in json.loads(manifest.read_text())["files"] if Path(f["name"]).stem == stem]
    if not files:
        raise UserError(
            f"{request.key} is embedded but {manifest} lists no {stem}: this profile renders no sample; "
            "set profiles.<profile>.render to true or the key to another source"
        )
    name = str(files[0]["name"])
    origin = f"in {manifest}; run `dvc repro -f render`"
    return name, copy_checked(embedded / name, folder / name, f"sha256:{files[0]['sha256']}", origin)


def _bring_path(request: Request, base: Path, folder: Path) -> tuple[str, str]:
    """Copy a user's archive, or pack a user's folder or HDF5 file."""
    obtain = next((p.obtain for p in request.expected if p.obtain), "correct the parameter")
    hint = f"{request.words}; {obtain}"
    source = resolve(request.value, request.key, base, hint)
    if source.is_dir() or source.suffix in HDF5_SUFFIXES:
        name = pack_folder(source, folder, request.expected)
        return name, sha256_of(folder / name)
    published, suffix = check_archive(source, request.expected)
    name = published.stored_name(suffix)
    checksum = published.checksum_of(source.name, source.stat().st_size)
    if published.checksum and checksum is None:
        log(f"{request.key}: {source.name} is not the published archive (name or length differ); its origin is unknown")
    return name, copy_checked(source, folder / name, checksum, f"published for {published.name}; download it again")


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
        layout.scratch("download"),
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
