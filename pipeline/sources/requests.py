"""What the parameters ask for: the archives of a data set, and the source of each."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.errors import UserError
from pipeline.sources.catalog import Published, archives_of
from pipeline.sources.config import CocoSource, DataConfig
from pipeline.sources.local import is_remote

PLACES = "the path of an archive or extracted folder, or a URL (or several, tried in this order)"
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


def urls_of(request: Request) -> list[str]:
    """The URLs to download from, in this order; empty if the source is on this machine."""
    if request.value in ("embedded", "none"):
        return []
    if request.value == "published":
        (published,) = request.expected
        if published.url is None:
            raise UserError(f"{request.key} is {published.called or 'published'}, but {published.obtain}")
        return [published.url, *published.mirrors]
    urls = request.value.split()
    remote = [is_remote(url) for url in urls]
    if len(urls) > 1 and any(remote) and not all(remote):
        raise UserError(
            f"{request.key} is {request.value!r}; expected one path, or URLs with spaces between them; correct it"
        )
    return urls if urls and all(remote) else []
