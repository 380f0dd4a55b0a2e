"""Reads every picture once: which can't be decoded, of which kind and size the others are, and which are equal."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mi_contrast.data import fingerprint
from mi_contrast.data.decoding import EIGHT_BITS, BrokenImageError, is_deep, open_image, read_orientation, to_rgb
from mi_contrast.data.imageset import map_in_threads
from mi_contrast.data.kept import LARGE_SCAN, keep_arrays
from mi_contrast.data.pictures import Pictures

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Look:
    """What was seen of one picture: why it can't be decoded or '', its kind, its sides, a checksum of its bytes."""

    reason: str
    kind: str
    width: int
    height: int
    digest: int


@dataclass(frozen=True)
class Scan:
    """What was seen of every picture, by name."""

    looks: dict[str, Look]

    @property
    def reasons(self) -> dict[str, str]:
        """Why each broken picture can't be decoded."""
        return {name: look.reason for name, look in self.looks.items() if look.reason}

    def list_twins(self) -> list[list[str]]:
        """Returns the groups of two or more pictures whose files are equal byte by byte, each sorted by name."""
        by_digest: dict[int, list[str]] = {}
        for name, look in self.looks.items():
            if not look.reason:
                by_digest.setdefault(look.digest, []).append(name)
        return [sorted(names) for names in by_digest.values() if len(names) > 1]

    def list_sides(self, names: Sequence[str]) -> np.ndarray:
        """Returns the (height, width) in pixels of the pictures that can be decoded, int32 [n, 2]."""
        looks = [self.looks[name] for name in names if not self.looks[name].reason]
        return np.array([(look.height, look.width) for look in looks], np.int32).reshape(-1, 2)

    def count_kinds(self, names: Sequence[str]) -> dict[str, int]:
        """Returns how many pictures are of each kind, such as 'JPEG' or 'PNG with transparency', most first."""
        kinds = Counter(self.looks[name].kind for name in names if not self.looks[name].reason)
        return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


_SCANS: dict[tuple[str, str], Scan] = {}  # of this process, which asks for a set's scan several times


def scan_pictures(pictures: Pictures) -> Scan:
    """Decodes every picture, in threads and with a progress bar after 5 s, and returns what was seen.

    JPEGs are decoded at an eighth of their size, which still reads all of their bytes. The scan of 2,000 pictures or
    more is kept on disk (`kept.keep_arrays`), until a file is added, removed or changed.
    """
    names = pictures.names
    written = {f"{name} {pictures.stamps[name][1]}": pictures.stamps[name][0] for name in names}
    about = hashlib.sha256(repr(sorted(pictures.facts.items())).encode()).hexdigest()[:8]
    checksum = fingerprint.fingerprint_files(written, (), "")["sum"] + about
    key = pictures.root, checksum
    if key not in _SCANS:
        _SCANS[key] = _read(pictures, checksum) if len(names) >= LARGE_SCAN else _look_at_all(pictures)
    return _SCANS[key]


def _look_at_all(pictures: Pictures) -> Scan:
    what = f"looking at the {len(pictures.names):,} pictures of {pictures.root}"
    looks = map_in_threads(lambda name: look_at(pictures, name, *pictures.stamps[name]), pictures.names, what)
    return Scan(dict(zip(pictures.names, looks, strict=True)))


def _read(pictures: Pictures, checksum: str) -> Scan:
    """Returns the scan that is kept on disk, or makes and keeps it."""

    def make() -> dict[str, np.ndarray]:
        looks = _look_at_all(pictures).looks
        return {
            "names": np.array(list(looks), np.str_),
            "reasons": np.array([look.reason for look in looks.values()], np.str_),
            "kinds": np.array([look.kind for look in looks.values()], np.str_),
            "sides": np.array([(look.width, look.height) for look in looks.values()], np.int64),
            "digests": np.array([look.digest for look in looks.values()], np.uint64),
        }

    kept = keep_arrays(pictures.root, "scan", {"sum": checksum}, make)
    rows = zip(*(kept[field].tolist() for field in ("names", "reasons", "kinds", "sides", "digests")), strict=True)
    return Scan({name: Look(reason, kind, w, h, digest) for name, reason, kind, (w, h), digest in rows})


def look_at(pictures: Pictures, name: str, size: int, modified: int) -> Look:
    """Reads and decodes one picture."""
    try:
        encoded = pictures.read(name)
    except BrokenImageError as error:
        return Look(error.why or "it can't be read", "", 0, 0, 0)
    digest = hashlib.sha256(encoded).digest()
    return _look_at_bytes(name, digest, encoded)


def _look_at_bytes(name: str, digest: bytes, encoded: bytes) -> Look:
    number = int.from_bytes(digest[:8], "big")
    try:
        with open_image(io.BytesIO(encoded), name) as image:
            kind = describe_kind(str(image.format), image.mode, is_deep(image))
            if image.mode not in EIGHT_BITS and not is_deep(image):
                to_rgb(image, name)
            width, height = image.size
            image.draft("RGB", (1, 1))
            image.load()
            if read_orientation(image) in SIDEWAYS:
                width, height = height, width
    except BrokenImageError as error:
        return Look(error.why, "", 0, 0, number)
    return Look("", kind, width, height, number)


@lru_cache
def describe_kind(form: str, mode: str, deep: bool) -> str:
    """Returns the kind of a picture in words.

    >>> describe_kind("PNG", "RGBA", False), describe_kind("TIFF", "I;16", True), describe_kind("JPEG", "RGB", False)
    ('PNG with transparency', 'TIFF of 16 bits', 'JPEG')
    """
    words = {"L": " in grey", "1": " in black and white", "RGBA": " with transparency", "LA": " with transparency"}
    words |= {"PA": " with transparency", "CMYK": " in CMYK"}
    return form + (" of 16 bits" if deep else words.get(mode, ""))
