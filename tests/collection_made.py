"""A tree of 300 series as archives have them, with what each row of its table must say, by plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import series_made as made

PET = {
    "SOPClassUID": made.PT,
    "Modality": "PT",
    "RescaleSlope": 0.5,
    "RescaleIntercept": 0.0,
    "Units": "BQML",
    "ImageType": ("ORIGINAL", "PRIMARY"),
}
CAPTURE = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT", "ImageType": ("DERIVED", "SECONDARY")}
LOCALIZER = {"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}


class Row(NamedTuple):
    """What the table must say of a grid."""

    series_uid: str
    stack: int
    patient_id: str
    modality: str
    images: int
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    field_of_view: tuple[float, ...]
    dtype: str
    findings: tuple[str, ...]
    opens: bool
    saves: bool
    """Whether it can be saved: its pixels can be read."""


def make_tree(root: Path) -> list[Row]:
    """Write the tree, and return its rows in the order of their series numbers."""
    rows = [row for n, kind in enumerate(_kinds()) for row in kind(root, n)]
    rubbish = root / "rubbish"
    rubbish.mkdir()
    (rubbish / "notes.txt").write_text("nothing " * 100)
    (rubbish / "empty.dcm").write_bytes(b"")
    (rubbish / "half.dcm").write_bytes(made.encode(made.image(0, made.ORIGIN))[:400])
    (rubbish / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(900))
    (rubbish / "link").symlink_to(rubbish / "nowhere")
    return rows


SKIPPED = 5
"""Files of the tree that are left out."""
BAD = 15
"""Series of the tree in which something is wrong."""


def _kinds() -> Iterator[Any]:
    for _ in range(140):
        yield _ct
    for _ in range(60):
        yield _pet
    for _ in range(35):
        yield _cine
    for _ in range(25):
        yield _localizer
    for _ in range(25):
        yield _capture
    for what in (_short, _twice, _gap, _uneven, _malformed):
        yield from (what, what, what)


def _said(n: int) -> dict[str, Any]:
    """Return what tells series ``n`` from others; a patient has three of them, a study two."""
    return {
        "SeriesInstanceUID": f"1.2.3.{n}",
        "StudyInstanceUID": f"1.2.2.{n // 3}.{n % 3 // 2}",
        "PatientID": f"SECRET-{n // 3:03d}",
        "SeriesNumber": n + 1,
        "SeriesDescription": f"described {n}",
    }


def _folder(root: Path, n: int) -> Path:
    """Return a folder: of a series of its own, or one that three share."""
    return root / (f"own/{n:03d}" if n % 2 else f"shared/{n // 6:03d}")


def _write(root: Path, n: int, images: list[Any]) -> list[Path]:
    """Write images, every fifth series in two folders, under names that tell nothing."""
    for k, image in enumerate(images):
        image.SOPInstanceUID = f"1.2.3.{n}.{k + 1}"
    cut = len(images) // 2 if n % 5 == 0 else len(images)
    parts = images[:cut], images[cut:]
    paths = []
    for half, part in enumerate(parts):
        folder = _folder(root, n) / ("half" if half else ".")
        folder.mkdir(parents=True, exist_ok=True)
        for k, image in enumerate(part):
            path = folder / f"{(n * 7919 + (k + half * cut) * 104729) % 1000003:07d}"
            path.write_bytes(made.encode(image))
            paths.append(path)
    return paths


def _row(n: int, shape: tuple[int, ...], **other: Any) -> Row:
    dims = other.pop("dims", ("z", "y", "x"))
    spacing = other.pop("spacing", made.SPACING)
    lengths = dict(zip(dims, shape, strict=True))
    view = other.pop("field_of_view", tuple(lengths[d] * s for d, s in zip("zyx", spacing, strict=True)))
    images = int(np.prod(shape[:-2]))
    said: dict[str, Any] = {"stack": 0, "modality": "CT", "dtype": "int16", "findings": (), "opens": True}
    said |= {"images": images, "patient_id": f"SECRET-{n // 3:03d}", **other}
    return Row(
        series_uid=f"1.2.3.{n}",
        dims=dims,
        shape=shape,
        spacing=spacing,
        field_of_view=view,
        **{"saves": said["opens"], **said},
    )


def _ct(root: Path, n: int) -> list[Row]:
    count = 3 + n % 6
    _write(root, n, made.series(count, **_said(n)))
    return [_row(n, (count, made.ROWS, made.COLUMNS))]


def _pet(root: Path, n: int) -> list[Row]:
    count = 3 + n % 4
    _write(root, n, made.series(count, **_said(n), **PET))
    return [_row(n, (count, made.ROWS, made.COLUMNS), modality="PT", dtype="float32")]


def _cine(root: Path, n: int) -> list[Row]:
    _write(root, n, made.grid({"TriggerTime": [0.0, 40.0, 80.0]}, 2, **_said(n)))
    shape = (3, 2, made.ROWS, made.COLUMNS)
    return [_row(n, shape, modality="MR", dtype="uint16", dims=("cardiac_phase", "z", "y", "x"))]


def _localizer(root: Path, n: int) -> list[Row]:
    planes = [
        made.series(count, orientation=way, **_said(n), **LOCALIZER)
        for count, way in ((3, made.AXIAL), (2, made.CORONAL))
    ]
    _write(root, n, [image for plane in planes for image in plane])
    found = {"findings": ("several-stacks",)}
    shape = made.ROWS, made.COLUMNS
    return [_row(n, (3, *shape), **found), _row(n, (2, *shape), stack=1, **found)]


def _capture(root: Path, n: int) -> list[Row]:
    absent = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID")
    )
    image = made.image(0, None, **(_said(n) | CAPTURE | absent))
    _write(root, n, [image])
    unknown = (np.nan,) * 3
    found = ("geometry-unknown", "pixel-spacing-unknown")
    return [
        _row(
            n,
            (1, made.ROWS, made.COLUMNS),
            modality="OT",
            dtype="int32",
            spacing=unknown,
            field_of_view=unknown,
            findings=found,
        )
    ]


def _short(root: Path, n: int) -> list[Row]:
    paths = _write(root, n, made.series(4, **_said(n)))
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    return [_row(n, (4, made.ROWS, made.COLUMNS), findings=("pixels-truncated",), saves=False)]


def _twice(root: Path, n: int) -> list[Row]:
    images = [*made.series(3, **_said(n)), *made.series(3, **_said(n))]
    _write(root, n, images)
    spacing = (np.nan, *made.SPACING[1:])
    view = (np.nan, made.ROWS * spacing[1], made.COLUMNS * spacing[2])
    said = {"spacing": spacing, "field_of_view": view, "findings": ("several-per-position",)}
    return [_row(n, (6, made.ROWS, made.COLUMNS), opens=False, **said)]


def _gap(root: Path, n: int) -> list[Row]:
    _write(root, n, made.series(at=[0, 1, 3, 4], **_said(n)))
    shape = (4, made.ROWS, made.COLUMNS)
    spacing = (np.nan, *made.SPACING[1:])
    view = (5 * made.SPACING[0], made.ROWS * spacing[1], made.COLUMNS * spacing[2])
    return [_row(n, shape, spacing=spacing, field_of_view=view, findings=("missing-slices",))]


def _uneven(root: Path, n: int) -> list[Row]:
    at = [0, 1, 2.3, 3.9]
    _write(root, n, made.series(at=at, **_said(n)))
    shape = (4, made.ROWS, made.COLUMNS)
    spacing = (np.nan, *made.SPACING[1:])
    along = (3.9 + (1.0 + 1.6) / 2) * made.SPACING[0]
    view = (along, made.ROWS * spacing[1], made.COLUMNS * spacing[2])
    return [_row(n, shape, spacing=spacing, field_of_view=view, findings=("uneven-spacing",))]


def _malformed(root: Path, n: int) -> list[Row]:
    images = made.series(4, **_said(n))
    paths = _write(root, n, images)
    content = paths[2].read_bytes()
    number = content.index(b"\x20\x00\x13\x00IS")
    length = int.from_bytes(content[number + 6 : number + 8], "little")
    paths[2].write_bytes(content[: number + 8] + b"x" * length + content[number + 8 + length :])
    return [_row(n, (4, made.ROWS, made.COLUMNS), findings=("malformed-value",))]
