"""What is published: names, URLs, lengths, checksums and layouts of the archives of each data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import filter as match_names
from pathlib import PurePosixPath

from pipeline.core.errors import UserError

HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class Published:
    """One archive as its publisher distributes it.

    Attributes:
        name: file name of the archive.
        root: folder inside the archive that contains everything needed.
        members: shell patterns, each of which must match a member (`*` crosses `/`); `|` between alternatives.
        instead: patterns; a match with any one of them replaces all `members`.
        part: key below `profiles.<p>.data.<dataset>` if a data set has several archives, else empty.
        url: where it is published; None if it cannot be downloaded automatically.
        mirrors: further URLs of the same file, tried in this order if the first one fails.
        n_bytes: length in bytes, if known.
        checksum: `sha256:<hex>` or `md5:<hex>`, if published.
        obtain: for an archive without `url`: why it has none, and how to get it.
        called: for a data set that is one of several archives: the value of its key that selects this one.
    """

    name: str
    root: str
    members: tuple[str, ...]
    instead: tuple[str, ...] = ()
    part: str = ""
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    n_bytes: int | None = None
    checksum: str | None = None
    obtain: str = ""
    called: str = ""

    def checksum_of(self, name: str, n_bytes: int) -> str | None:
        """The published checksum if a file of that name and length is the published one, else None."""
        return self.checksum if (name, n_bytes) == (self.name, self.n_bytes) else None

    def stored_name(self, suffix: str) -> str:
        """The published name with the suffix that fits the file's real format (`.zip` or `.tar`)."""
        return str(PurePosixPath(self.name).with_suffix(suffix))

    def missing(self, names: Sequence[str]) -> str | None:
        """The first expected member that is not in `names`, with the alternatives to it; None if none is missing.

        The members may be below further folders, and the folders of `root` may be missing, all or the outer ones.
        """
        if any(match_names(names, pattern) for pattern in self.instead):
            return None
        lacking = [self._lacking(names, depth) for depth in range(self.root.count("/") + 2)]
        first = lacking[0]
        return None if None in lacking or first is None else " or ".join((*first.split("|"), *self.instead))

    def _lacking(self, names: Sequence[str], depth: int) -> str | None:
        """The first pattern without a match if the outer `depth` folders of `root` are not there."""
        for pattern in self.members:
            inner = [alternative.split("/", depth)[-1] for alternative in pattern.split("|")]
            if not any(_match_below(names, one) for one in inner):
                return pattern
        return None


def _match_below(names: Sequence[str], pattern: str) -> bool:
    """Whether a file matches, in any folder; a pattern without a folder matches only files outside of all folders."""
    if "/" not in pattern:
        return bool(match_names([name for name in names if "/" not in name], pattern))
    return bool(match_names(names, pattern) or match_names(names, f"*/{pattern}"))


def _davis_test(split: str) -> Published:
    name = f"DAVIS-2017-{split}-480p.zip"
    return Published(
        name=name,
        root="DAVIS",
        members=(
            f"DAVIS/ImageSets/2017/{split}.txt",
            "DAVIS/JPEGImages/*/*/*.jpg",
            "DAVIS/Annotations/*/*/*.png",
        ),
        url=f"https://data.vision.ee.ethz.ch/csergi/share/davis/{name}",
        called=split,
    )


CATALOG: dict[str, tuple[Published, ...]] = {
    "davis": (
        Published(
            name="DAVIS-2017-trainval-480p.zip",
            root="DAVIS",
            members=(
                "DAVIS/ImageSets/2017/*.txt|DAVIS/ImageSets/2016/*.txt|DAVIS/ImageSets/*p/*.txt",
                "DAVIS/JPEGImages/*/*/*.jpg",
                "DAVIS/Annotations/*/*/*.png",
            ),
            url="https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
            n_bytes=832_766_765,
            checksum="sha256:e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
        ),
    ),
    "youtubevos": (
        Published(
            name="train.tar",
            root="train",
            members=("train/meta.json", "train/JPEGImages/*/*.jpg", "train/Annotations/*/*.png"),
            n_bytes=9_258_444_800,
            checksum="sha256:5a81246005cfc2245bcd1f7e8fff41868963dfc3873e92bb810ea5f35a7cf8c0",
            obtain="YouTube-VOS is only available after registration: register at https://youtube-vos.org (CodaLab), "
            "download the 2019 training set (train.zip or train.tar, about 9.3 GB) to any place, and set the key to "
            "its path (or put it at data/external/train.tar)",
        ),
    ),
    "msra10k": (
        Published(
            name="MSRA10K_Imgs_GT.zip",
            root="MSRA10K_Imgs_GT/Imgs",
            members=("MSRA10K_Imgs_GT/Imgs/*.jpg", "MSRA10K_Imgs_GT/Imgs/*.png"),
            url="http://mftp.mmcheng.net/Data/MSRA10K_Imgs_GT.zip",
        ),
    ),
    "coco": (
        Published(
            name="train2017.zip",
            root="train2017",
            members=("train2017/*.jpg",),
            part="images",
            url="http://images.cocodataset.org/zips/train2017.zip",
            mirrors=("https://s3.amazonaws.com/images.cocodataset.org/zips/train2017.zip",),
            n_bytes=19_336_861_798,
            checksum="sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        ),
        Published(
            name="annotations_trainval2017.zip",
            root="annotations",
            members=("annotations/instances_train2017.json",),
            part="annotations",
            url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            mirrors=("https://s3.amazonaws.com/images.cocodataset.org/annotations/annotations_trainval2017.zip",),
            n_bytes=252_907_541,
            checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
    ),
    "voc": (
        Published(
            name="VOCtrainval_11-May-2012.tar",
            root="VOCdevkit/VOC2012",
            members=(
                "VOCdevkit/VOC2012/ImageSets/Segmentation/*.txt",
                "VOCdevkit/VOC2012/JPEGImages/*.jpg",
                "VOCdevkit/VOC2012/SegmentationObject/*.png",
            ),
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            mirrors=(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
            ),
            n_bytes=1_999_639_040,
            checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
        ),
    ),
    "mannequin": (
        Published(
            name="mannequin.zip",
            root="MannequinChallenge",
            members=("MannequinChallenge/*/rgb/*.jpg", "MannequinChallenge/*/depth/*.png"),
            instead=tuple(f"*{suffix}" for suffix in HDF5_SUFFIXES),
            obtain="the training depth of MannequinChallenge was never released: set the key to none (the published "
            "weights are used instead) or to your own RGB and depth in a layout of docs/formats.md",
        ),
    ),
    "challenge": (
        _davis_test("test-dev"),
        _davis_test("test-challenge"),
        Published(
            name="valid.tar",
            root="valid",
            members=("valid/meta.json", "valid/JPEGImages/*/*.jpg", "valid/Annotations/*/*.png"),
            n_bytes=1_296_824_320,
            checksum="sha256:3c847cd8f64ec6219db88671681303e84537e5478d53a88534592761ba74eb03",
            obtain="YouTube-VOS is only available after registration: register at https://youtube-vos.org (CodaLab), "
            "download the 2019 validation set (valid.zip or valid.tar, about 1.3 GB) and set the key to its path",
            called="youtubevos-valid",
        ),
    ),
}


def archives_of(dataset: str) -> tuple[Published, ...]:
    """The archives that make up a data set; for `challenge`, the archives of which it is one.

    Raises:
        UserError: there is no such data set.
    """
    if dataset not in CATALOG:
        raise UserError(f"there is no data set {dataset!r}; expected one of {', '.join(CATALOG)}; correct the command")
    return CATALOG[dataset]
