"""The text of a model card: what a network was trained on and how, what it scores, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.reporting.licences import Terms
from pipeline.reporting.tables import ObjectRow, tabulate_kinds

_WORST = 5


@dataclass(frozen=True)
class TrainingData:
    """A data set that the network was trained on.

    Attributes:
        dataset: key of `profiles.<p>.data`.
        source: its value.
        files: entries of its manifest: `name`, `bytes` and `sha256`, or `name` and `fingerprint`.
        terms: what it may be used for.
    """

    dataset: str
    source: str
    files: Sequence[Mapping[str, str | int]]
    terms: Terms


@dataclass(frozen=True)
class CardContent:
    """What a card says.

    Attributes:
        profile: name of the profile.
        sha256: of the checkpoint.
        md5: of the checkpoint, as dvc.lock has it.
        n_parameters: number of the network's weights.
        seed: of the initial weights and the training clips.
        switches: `model.*`, `loss.*` and `infer.*`.
        data: training data, those that are switched off left out.
        parameters: sections of the profile.
        split: that was scored.
        objects: scores of every object; empty if the split is not scored here.
        depth: metrics of the depth network.
        pictures: paths of pictures below the card's folder, the worst sequence first.
    """

    profile: str
    sha256: str
    md5: str
    n_parameters: int
    seed: int
    switches: Mapping[str, Any]
    data: Sequence[TrainingData]
    parameters: Mapping[str, Any]
    split: str
    objects: Sequence[ObjectRow]
    depth: Mapping[str, Any]
    pictures: Sequence[str]


def write_card(content: CardContent) -> str:
    """The card as Markdown."""
    parts = [
        [f"# Model card: D-STM, profile {content.profile}", "", "Written by the stage `card`.", "", *_facts(content)],
        ["## Data", "", *_data(content.data)],
        [f"## Metrics ({content.split})", "", *_metrics(content)],
        ["## Known failures", "", *_failures(content)],
        ["## Parameters", "", "```yaml", yaml.safe_dump(dict(content.parameters), sort_keys=False).rstrip(), "```"],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _facts(content: CardContent) -> list[str]:
    switches = ", ".join(f"`{key}: {_plain(value)}`" for key, value in content.switches.items())
    return [
        "| | |",
        "| --- | --- |",
        f"| file | `dstm.pt`, SHA-256 {content.sha256} |",
        f"| weights | {content.n_parameters:,} |",
        f"| switches | {switches} |",
        f"| seed | {content.seed} |",
        f"| code | the commit whose `dvc.lock` has MD5 {content.md5}: `git log -S{content.md5} -- dvc.lock` |",
    ]


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(data: Sequence[TrainingData]) -> list[str]:
    lines = ["| data set | source | file | SHA-256 or fingerprint | terms |", "| --- | --- | --- | --- | --- |"]
    for one in data:
        for file in one.files:
            shown, digest = _file(file)
            terms = f"{one.terms.called}: {one.terms.words}"
            lines.append(f"| {one.dataset} | `{one.source}` | {shown} | {digest} | {terms} |")
    limited = [one.dataset for one in data if not one.terms.free]
    if limited:
        lines += [
            "",
            f"**Not clearly free for commercial use: {', '.join(limited)}.** So these weights are for research.",
        ]
    else:
        lines += ["", "All of it may be used for any purpose."]
    return lines


def _file(entry: Mapping[str, str | int]) -> tuple[str, str]:
    """Name and digest of a manifest's entry; archives and folders that are read in place have a fingerprint."""
    if "sha256" in entry:
        return f"{entry['name']} ({int(entry['bytes']):,} bytes)", str(entry["sha256"])
    return f"{entry['name']}, read in place", f"fingerprint {entry['fingerprint']}"


def _metrics(content: CardContent) -> list[str]:
    lines = ["One run with one seed. J&F, J and F are means over objects, from 0 to 1."]
    if content.objects:
        rows = tabulate_kinds(content.objects)
        names = list(rows[0])
        lines += ["", f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join(row[name] or '-' for name in names)} |" for row in rows]
    else:
        lines += ["", "Not scored: the annotations of this split are not published."]
    shown = {key: value for key, value in content.depth.items() if isinstance(value, int | float | str)}
    if shown:
        lines += ["", "Depth network: " + ", ".join(f"{key} {value}" for key, value in shown.items()) + "."]
    return lines


def _failures(content: CardContent) -> list[str]:
    if not content.objects:
        return ["Unknown, because nothing was scored."]
    ranked = sorted(content.objects, key=lambda one: (one.j + one.f, one.sequence))
    below = sum(1 for one in ranked if one.copy_first is not None and (one.j + one.f) / 2 < one.copy_first)
    lines = [
        f"{below} of {len(ranked)} objects score less than the first mask copied to every frame. The worst objects:",
        "",
        "| sequence | kind | J | F | first mask copied |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in ranked[:_WORST]:
        copied = "-" if one.copy_first is None else f"{one.copy_first:.3f}"
        lines.append(f"| {one.sequence} | {one.kind} | {one.j:.3f} | {one.f:.3f} | {copied} |")
    for picture in content.pictures:
        lines += ["", f"![Result, depth and ground truth of a sequence with a low score]({picture})"]
    return lines
