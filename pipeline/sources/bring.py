"""Bring one archive: from the store, a URL, a path of the user, or the rendered sample; verified in each case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.manifest import NAME, read_manifest
from pipeline.core.references import refer
from pipeline.core.runtime import digest, log
from pipeline.sources.catalog import HDF5_SUFFIXES, Published
from pipeline.sources.checksums import sha256_of
from pipeline.sources.fetch import Fetched, fetch, forget
from pipeline.sources.local import check_archive, check_folder, hash_checked, resolve
from pipeline.sources.requests import Request, urls_of
from pipeline.sources.store import Store, one_at_a_time
from pipeline.sources.unpack import decompress, is_compressed


@dataclass(frozen=True)
class Brought:
    """What the manifest says of one archive, and the file to link; None if it is read where the user has it."""

    entry: dict[str, str | int]
    file: Path | None


def bring(request: Request, embedded: Path, store: Store, base: Path) -> Brought:
    """Bring one archive.

    Args:
        request: which, and its source.
        embedded: folder of the rendered sample's archives and their manifest.
        store: keeps downloads.
        base: the folder for relative paths.

    Raises:
        UserError: the source is missing, damaged, not the expected one, or does not fit on the disk.
    """
    urls = urls_of(request)
    if urls:
        return _download(request, urls, store)
    if request.value == "embedded":
        return _find_embedded(request, embedded)
    return _find_path(request, base, store)


def _download(request: Request, urls: list[str], store: Store) -> Brought:
    """The file of the first URL that gives it; of the store, if one of them has been downloaded before."""
    with one_at_a_time(store.parts / digest({"urls": urls}), urls[0]):
        kept = next((path for url in urls if (path := _kept(url, request, store))), None)
        kept = kept or _fetch_any(urls, request, store)
    published, suffix = check_archive(kept, request.expected)
    return _in_store(published.stored_name(suffix), kept)


def _in_store(name: str, kept: Path) -> Brought:
    return Brought({"name": name, "bytes": kept.stat().st_size, "sha256": kept.name}, kept)


def _fetch_any(urls: list[str], request: Request, store: Store) -> Path:
    for url, following in pairwise(urls):
        try:
            return _fetch(url, request, store)
        except UserError as error:
            log(f"{error}; trying the next address, {following}")
    return _fetch(urls[-1], request, store)


def _kept(url: str, request: Request, store: Store) -> Path | None:
    """The file of a URL in the store, if it has been downloaded before."""
    published = _published_at(url, request)
    checksums = [store.ledger.get(url), published.checksum if published else None]
    for checksum in checksums:
        kind, _, sha256 = (checksum or "").partition(":")
        if kind == "sha256":
            inside = (store.ledger.get(_unpacked(sha256)) or checksum or "").partition(":")[2]
            path = store.find(inside, url)
            if path is not None:
                log(f"{request.key}: {url} is in the store already ({path})")
                return path
    return None


def _published_at(url: str, request: Request) -> Published | None:
    return next((p for p in request.expected if url == p.url or url in p.mirrors), None)


def _fetch(url: str, request: Request, store: Store) -> Path:
    """Download, check, and put into the store."""
    published = _published_at(url, request)
    if published is not None:
        fetched = fetch(url, store.parts, store.ledger, published.n_bytes, published.checksum)
    else:
        fetched = fetch(url, store.parts, store.ledger)
    with _forgotten_on_error(fetched):
        path, sha256 = _decompressed(fetched.path, fetched.sha256, url, store)
        check_archive(path, request.expected)
    kept = store.keep(path, sha256)
    if store.ledger.get(url) is None:
        store.ledger.record(url, f"sha256:{fetched.sha256}")
    if not fetched.known:
        log(f"{request.key}: no checksum is known for {url}; recorded sha256 {fetched.sha256} for later downloads")
    forget(fetched.path)
    return kept


def _decompressed(path: Path, sha256: str, name: str, store: Store) -> tuple[Path, str]:
    """A compressed tar as a tar, next to it, and the digest of that; other files as they are."""
    if not is_compressed(path):
        return path, sha256
    target = path.with_name("archive.tar")
    inside = decompress(path, target, name)
    store.ledger.record(_unpacked(sha256), f"sha256:{inside}")
    return target, inside


def _unpacked(sha256: str) -> str:
    return f"decompressed sha256:{sha256}"


@contextmanager
def _forgotten_on_error(fetched: Fetched) -> Iterator[None]:
    """Remove a complete download that turns out to be another file, so that the next run does not use it again."""
    try:
        yield
    except UserError as error:
        forget(fetched.path)
        raise UserError(str(error).replace(str(fetched.path), "the download")) from None


def _find_embedded(request: Request, embedded: Path) -> Brought:
    """An archive of the rendered sample, compared with the checksum in its manifest."""
    manifest = embedded / NAME
    if not manifest.exists():
        raise UserError(f"{request.key} is embedded but {manifest} does not exist; run `dvc repro render` first")
    stem = Path(request.expected[0].name).stem
    files = [f for f in read_manifest(embedded) if Path(str(f["name"])).stem == stem]
    if not files:
        raise UserError(
            f"{request.key} is embedded but {manifest} lists no {stem}: this profile renders no sample; "
            "set profiles.<profile>.render to true or the key to another source"
        )
    name = str(files[0]["name"])
    origin = f"in {manifest}; run `dvc repro -f render`"
    sha256 = hash_checked(embedded / name, f"sha256:{files[0]['sha256']}", origin)
    return Brought({"name": name, "bytes": (embedded / name).stat().st_size, "sha256": sha256}, embedded / name)


def _find_path(request: Request, base: Path, store: Store) -> Brought:
    """A user's archive, folder or HDF5 file, to be read where it is; a compressed tar goes into the store as a tar."""
    obtain = next((p.obtain for p in request.expected if p.obtain), "correct the parameter")
    source = resolve(request.value, request.key, base, f"{request.words}; {obtain}")
    if source.is_dir() or source.suffix in HDF5_SUFFIXES:
        published = check_folder(source, request.expected)
        return Brought({"name": published.stored_name(""), "fingerprint": refer(source)}, None)
    if is_compressed(source):
        return _decompress_path(source, request, store)
    published, suffix = check_archive(source, request.expected)
    checksum = published.checksum_of(source.name, source.stat().st_size)
    if checksum:
        hash_checked(source, checksum, f"published for {published.name}; download it again")
    elif published.checksum:
        log(f"{request.key}: {source.name} is not the published archive (name or length differ); its origin is unknown")
    return Brought({"name": published.stored_name(suffix), "fingerprint": refer(source)}, None)


def _decompress_path(source: Path, request: Request, store: Store) -> Brought:
    sha256 = sha256_of(source)
    with one_at_a_time(store.parts / sha256[:16], str(source)):
        inside = (store.ledger.get(_unpacked(sha256)) or "").partition(":")[2]
        kept = store.find(inside, source.name) if inside else None
        if kept is None:
            part = store.parts / sha256[:16] / "archive.tar"
            inside = decompress(source, part, str(source))
            check_archive(part, request.expected)
            store.ledger.record(_unpacked(sha256), f"sha256:{inside}")
            kept = store.keep(part, inside)
    published, suffix = check_archive(kept, request.expected)
    return _in_store(published.stored_name(suffix), kept)
