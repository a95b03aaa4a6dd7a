"""A fictitious body as a DICOM series, for the demo, the examples and the tests.

The body is made of analytic shapes in mm, one axial plane at a time, so that memory stays at one
plane. Index order is (slice, row, column). Positions are LPS: x grows to the patient's left, y to
the back, z to the head. In the tables below z runs from 0 (thigh) to 960 (crown), x = 0 is the
midline, and the patient lies on the back with raised arms. Contrast is portal venous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["FICTITIOUS_PATIENT", "body_ct", "write_body_ct", "write_series"]

Plane = npt.NDArray[np.floating[Any]]  # of either precision
Real = float | Plane
Window = tuple[slice, slice]

HEIGHT = 960.0  # of the tables, mm
AIR, FAT, MUSCLE, LUNG = -1000.0, -100.0, 58.0, -860.0

FICTITIOUS_PATIENT: Mapping[str, str] = {
    "PatientName": "Fictitious^Phantom",
    "PatientID": "FICTITIOUS-4711",
    "PatientBirthDate": "19010203",
    "PatientSex": "O",
    "PatientAge": "099Y",
    "AccessionNumber": "FICTION-0815",
    "InstitutionName": "Hospital of Nowhere",
    "ReferringPhysicianName": "Nobody^Doctor",
    "OperatorsName": "Noone^Operator",
    "StudyDescription": "Invented whole body",
}
"""What each header says of the patient and the visit; nothing else should ever repeat it."""

# Ovals along z: z, half width, half depth, centre y; rows parted by ";".
TORSO = """112 30 15 20; 135 150 78 14; 170 176 98 14; 215 181 108 14; 280 172 108 12;
340 158 104 10; 400 152 103 9; 460 157 108 8; 540 167 115 8; 600 173 116 8; 645 176 108 9;
680 160 92 10; 702 112 78 12; 722 72 66 14; 745 59 59 14; 800 57 60 14; 840 57 60 14"""
CAVITY = """150 4 4 15; 165 34 40 14; 200 56 58 10; 240 92 74 6; 300 118 80 -6; 360 126 80 -6;
420 130 86 -4; 480 138 94 -1; 540 140 98 2; 600 132 95 4; 640 116 85 7; 670 94 68 10;
690 70 50 14; 704 42 28 18; 712 4 4 18"""
MEDIASTINUM = "490 50 55 0; 545 52 72 -8; 600 33 78 -4; 640 30 74 -2; 680 34 62 2; 708 40 40 8"
SACRUM = "183 9 5 97; 215 28 10 92; 250 45 15 80; 285 54 20 60; 296 40 18 52"
SPINE = """183 12 8 95; 240 22 15 78; 290 26 18 46; 350 26 18 32; 410 25 17 36; 454 22 16 44;
560 18 15 62; 640 17 14 60; 712 15 11 42; 760 12 9 30; 815 11 8 22"""
FAT_LAYER = "0 13; 150 18; 230 24; 300 24; 380 20; 460 14; 560 10; 680 11; 740 7; 800 4; 960 4"
ARM = ((148, 18, 668, 50), (176, 8, 770, 44), (180, 0, 990, 37))  # x y z radius
VERTEBRAE = ((289.0, 33.0, 5), (454.0, 21.5, 12), (712.0, 14.0, 7))  # lowest z, height, number
# Bone plates on both sides: z, then x y of three points, half thickness.
ILIUM = """212 76 34 62 8 74 -24 9; 232 66 40 78 10 97 -28 8; 262 46 64 76 34 109 -34 5.5;
300 40 70 88 40 121 -34 5; 332 62 60 104 24 124 -14 5.5; 343 86 42 106 22 118 4 6"""
SCAPULA = """556 84 92 92 88 98 84 3; 590 68 94 98 86 122 66 3; 640 62 90 104 74 142 42 3.5;
676 70 80 112 64 148 30 4.5; 690 92 66 122 48 152 22 5"""

# Parts, painted in order. Columns: name, sides, HU, core HU, depth of the core in mm; then either a
# ball (x y z and three half axes) or a tube (x y z radius, at each of its points).
ABDOMEN = """
psoas         both  62  62 0 36 36 450 8 42 30 370 18 58 6 270 19 84 -22 200 14
aorta         one  165 165 0 22 40 520 11 10 22 450 10 5 6 390 9.5 2 2 335 9
iliac_artery  both 160 160 0 3 2 338 7 30 18 290 6 56 6 240 6 72 -42 185 5.5
ivc           one  140 140 0 -20 16 545 13 -18 18 450 12 -18 8 390 11 -14 8 330 11
iliac_vein    both 130 130 0 6 8 332 8 34 26 290 7 60 14 240 7 78 -36 185 7
gallbladder   one   12  12 0 -48 -48 420 15 17 27
pancreas      one   95  95 0 -30 -12 418 14 -8 -22 432 12 28 -14 442 11 70 12 458 10
adrenal       both  90  90 0 30 36 478 2.5 42 46 472 2.5
spleen        one  122 122 0 96 44 492 31 44 46
kidney_right  one  205 145 8 -64 46 412 29 26 52
kidney_left   one  205 145 8 66 46 424 29 26 54
pelvis_left   one  -80  20 4 50 38 424 15 10 22
pelvis_right  one  -80  20 4 -48 38 412 15 10 22
stomach       one   95  28 5 62 18 505 33 66 -20 470 33 40 -46 436 26 4 -40 424 17
stomach_gas   one -985 -985 0 62 18 505 28 66 -20 470 28 40 -46 436 21
colon_right   one   70   5 4 -84 2 268 22 -100 8 320 25 -98 12 375 23 -92 -18 402 22
colon_cross   one   70   0 3 -92 -24 402 21 -50 -58 372 20 0 -66 362 19 50 -58 378 19 96 -6 452 20
colon_left    one   70  15 4 98 -2 450 19 104 26 400 17 102 24 330 16 88 12 276 16
sigmoid one 75 10 4 88 12 276 16 66 -8 244 16 20 -22 246 17 8 20 232 17 0 50 216 19 0 60 172 16
right_gas     one -960 -960 0 -84 2 268 17 -100 8 320 20 -98 12 375 18
cross_gas     one -970 -970 0 -92 -24 402 17 -50 -58 372 16 0 -66 362 15 50 -58 378 15 96 -6 452 16
sigmoid_gas   one -960 -960 0 66 -8 244 11 20 -22 246 12
bladder       one   55   8 3 0 -14 198 40 32 30
prostate      one   75  75 0 0 6 166 22 17 14
"""
CHEST = """
fat_pad       one  -95 -95 0   -4 -18 596 54  56 -44 552 40
right_heart   one   80 140 3  -34 -8 590 29  -28 -18 562 27
right_ventr   one   80 142 4   -6 -48 592 27  46 -66 550 18
left_heart    one  105 160 13  22 -4 588 38  62 -44 552 26
left_atrium   one   85 155 3  -12 24 602 22  24 24 602 22
oesophagus    one   55 55 0    4 34 700 6  4 40 560 7  14 34 520 8
aorta_up      one  160 160 0   4 -18 588 15  -14 -24 612 16  -10 -20 634 15  8 2 644 13.5
aorta_down    one  160 160 0   8 2 644 13.5  20 30 640 13  25 42 618 12.5  24 42 510 11
lung_trunk    one  150 150 0   12 -38 590 14  20 -18 616 14
lung_artery_l one  150 150 0   18 -14 620 12  40 10 620 10  54 18 606 8
lung_artery_r one  150 150 0   18 -10 616 11  -20 -2 612 11  -52 14 602 9
cava          one  150 150 0  -26 -12 592 9  -27 -20 636 9  -22 -28 662 8
vein_left     one  150 150 0  -20 -30 650 7  18 -38 668 6.5  60 -40 684 6
carotid       both 160 160 0   10 -8 644 5  22 -14 684 4.5  30 0 724 4  32 4 790 3.5
jugular       both 150 150 0   24 -34 664 6  38 -8 716 6  40 8 790 5
"""
AIRWAY = """
trachea       one   40 -990 1.5  0 -6 762 8.5  0 -22 728 10  0 -16 680 10  0 14 626 10
bronchus_r    one   40 -985 1.5  0 14 626 8  -24 20 606 7.5  -46 22 586 5
bronchus_l    one   40 -985 1.5  0 14 626 8  30 22 604 7  50 26 582 5
"""
BONE = """
femur         both 1250 60 6   92 10 0 15  104 12 90 15  116 14 160 17
trochanter    both 700 230 3  116 16 158 18  126 20 186 15
neck          both 800 260 3  118 16 176 15  92 6 198 16
femoral_head  both 700 330 3   90 4 200 24 24 24
ischium       both 700 250 3   70 36 212 13  64 44 176 15  58 40 148 14
lower_ramus   both 650 250 3   54 34 144 9  16 -38 150 8
upper_ramus   both 650 250 3   70 -22 202 11  10 -44 170 10
humeral_head  both 650 280 3  152 18 692 23 22 24
humerus       both 1200 80 4.5  158 16 700 14  178 4 780 12.5  184 0 860 12  178 -4 970 13
clavicle      both 700 300 3   18 -52 664 9  70 -44 682 7  138 -4 702 7
"""
HEAD = """
tongue        one   65  65 0    0 -48 776 24 36 20
maxilla       one  650 250 3    0 -54 798 40 37 20
zygoma        both 800 350 2   28 -74 818 9  56 -56 822 7  68 -24 828 4.5  70 0 830 4.5
orbit         both 500 -75 2.5 33 -62 845 22 26 20
optic_nerve   both  35  35 0   30 -58 844 2.5  14 -30 846 2.5
eye           both  70  15 1.5 33 -71 845 12.5 12.5 12.5
lens          both  95  95 0   33 -80 845 4.5 2.5 4.5
sinus         both 500 -985 2  28 -56 812 17 20 17
ethmoid       both 300 -930 2   7 -52 843 7 24 13
nasal         both 250 -985 2   7 -66 812 7 28 19
sphenoid      both 500 -970 2   8 -20 838 9 12 9
frontal_sinus both 700 -970 2  11 -80 868 10 6 10
petrous       both 1100 900 3  22 -2 830 8  52 16 829 12  64 24 826 12
mastoid       both 700 -600 3  62 26 822 12 15 17
jaw           both 1200 550 3.5  0 -84 756 9  26 -72 757 9  45 -30 764 9  54 -8 790 6  56 -4 822 5
upper_teeth   both 1900 1900 0  0 -86 785 5  16 -80 785 5  26 -52 785 6
lower_teeth   both 1900 1900 0  0 -84 773 5  16 -77 773 5  27 -50 773 6
hyoid         both 450 450 0    0 -34 752 4  24 -10 758 3
thyroid       both 170 170 0   17 -18 706 9 10 20
pharynx       one   45 -990 2   0 -20 826 11  0 -14 800 11  0 -6 770 9
medulla       one   10   36 2   0 28 836 12  0 36 812 10  0 38 796 9
"""


# --- the body ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One row of a table of parts."""

    name: str
    both: bool
    hu: float
    core: float
    inset: float
    points: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """One axial plane that is being painted."""

    hu: Plane
    x: Plane
    """LPS x of each pixel, mm; bent a little, as no organ is an ellipsoid."""
    y: Plane
    z: float
    edge: float
    """Width over which a border is blurred in the plane, mm."""
    slab: float
    """The same along z, mm."""

    def cut(self, box: Window) -> _Canvas:
        return replace(self, hu=self.hu[box], x=self.x[box], y=self.y[box])

    def paint(self, distance: Plane, hu: Real, *, strength: float = 1.0) -> None:
        """Blend in ``hu`` where the signed distance to a border, mm, is negative."""
        self.hu[...] += strength * np.clip(0.5 - distance / self.edge, 0, 1) * (hu - self.hu)

    def around(self, x0: float, x1: float, y0: float, y1: float) -> Window:
        """Return the part of the plane that holds the box, with a margin for the bend."""
        margin = 6 + self.edge
        columns = np.searchsorted(self.x[0], (x0 - margin, x1 + margin))
        rows = np.searchsorted(self.y[:, 0], (y0 - margin, y1 + margin))
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))


@cache
def _profile(table: str) -> Plane:
    return np.array([[float(v) for v in row.split()] for row in table.split(";")])


def _at(table: str, z: Real) -> list[Plane]:
    """Return the columns of a table at heights ``z``, with rounded corners."""
    keys, *columns = _profile(table).T
    heights = np.add.outer((-9.0, -3.0, 3.0, 9.0), z)
    return [np.asarray(np.interp(heights, keys, c).mean(axis=0)) for c in columns]


@cache
def _parts(table: str) -> tuple[_Part, ...]:
    return tuple(_part(row.split()) for row in table.strip().splitlines())


def _part(words: Sequence[str]) -> _Part:
    numbers = [float(v) for v in words[2:]]
    width = 6 if len(numbers) == 9 else 4
    points = tuple(tuple(numbers[i : i + width]) for i in range(3, len(numbers), width))
    return _Part(words[0], words[1] == "both", numbers[0], numbers[1], numbers[2], points)


@cache
def _waves(seed: int, length: float, n: int = 24) -> Plane:
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(3, n))
    ways *= 2 * np.pi / length / np.linalg.norm(ways, axis=0) * rng.uniform(0.6, 1.5, n)
    return np.vstack([ways, rng.uniform(0, 2 * np.pi, n)])


def _texture(x: Plane, y: Plane, z: float, *, seed: int, length: float) -> Plane:
    """Return smooth noise of unit variance from ``x`` (nx,) and ``y`` (ny,), as sum of waves."""
    kx, ky, kz, phase = _waves(seed, length)
    a, b = np.outer(y, ky) + kz * z + phase, np.outer(kx, x)
    waves: Plane = np.hstack([np.cos(a), -np.sin(a)]) @ np.vstack([np.cos(b), np.sin(b)])
    return np.asarray(waves * np.sqrt(2 / kx.size), dtype=np.float32)


def _oval(x: Plane, y: Plane, a: Real, b: Real, *, power: float = 2.0) -> Plane:
    """Return the distance to a superellipse around 0, along the ray, mm, negative inside."""
    radius: Plane = np.hypot(x, y) + 1e-3
    a, b = np.maximum(a, 1e-2), np.maximum(b, 1e-2)
    if power == 2:
        f = np.hypot(x / a, y / b)
    else:
        f = (np.abs(x / a) ** power + np.abs(y / b) ** power) ** (1 / power)
    return radius - radius / np.maximum(f, 1e-4)


def _ball(c: _Canvas, centre: Sequence[float], axes: Sequence[float]) -> Plane:
    """Return the distance to an ellipsoid, mm; large where the plane misses it."""
    s = np.sqrt(max(1 - ((c.z - centre[2]) / axes[2]) ** 2, 0.0))
    if s == 0:
        return np.full_like(c.x, 1e3)
    return _oval(c.x - centre[0], c.y - centre[1], axes[0] * s, axes[1] * s)


def _capsule(c: _Canvas, p: Sequence[float], q: Sequence[float]) -> tuple[Plane, Plane]:
    """Return the distance to a tapered tube from p to q (x y z r), and y above its axis, mm."""
    (px, py, pz, pr), (qx, qy, qz, qr) = p, q
    dx, dy, dz = qx - px, qy - py, qz - pz
    x, y, z = c.x - px, c.y - py, c.z - pz
    t = np.clip((x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz + 1e-6), 0, 1)
    across = y - t * dy
    return np.sqrt((x - t * dx) ** 2 + across**2 + (z - t * dz) ** 2) - (pr + t * (qr - pr)), across


def _pieces(c: _Canvas, part: _Part) -> Iterator[tuple[_Canvas, Plane]]:
    """Yield the piece of the plane and the distance for each part of a part in this plane."""
    if len(part.points[0]) == 6:
        x, y, z, *axes = part.points[0]
        if abs(c.z - z) < axes[2]:
            cut = c.cut(c.around(x - axes[0], x + axes[0], y - axes[1], y + axes[1]))
            yield cut, _ball(cut, (x, y, z), axes)
        return
    for p, q in zip(part.points, part.points[1:], strict=False):
        (x0, y0, z0), (x1, y1, z1) = (
            tuple(f(u - s * p[3], v - s * q[3]) for u, v in zip(p[:3], q[:3], strict=True))
            for s, f in ((1, min), (-1, max))
        )
        if z0 < c.z < z1:
            cut = c.cut(c.around(x0, x1, y0, y1))
            distance, across = _capsule(cut, p, q)
            gas = part.name.endswith("_gas")  # rises to the front: the patient is supine
            yield cut, np.maximum(distance, across + 1) if gas else distance


def _mirror(part: _Part) -> _Part:
    return replace(part, points=tuple((-p[0], *p[1:]) for p in part.points))


def _paint_parts(c: _Canvas, parts: Iterable[_Part]) -> None:
    for part in parts:
        for one in (part, _mirror(part)) if part.both else (part,):
            pieces = list(_pieces(c, one))
            for cut, distance in pieces:
                cut.paint(distance, one.hu)
            for cut, distance in pieces if one.inset else ():
                cut.paint(distance + one.inset, one.core)


def _cavity(x: Plane, y: Plane, z: Real) -> Plane:
    """Return the distance to the inner wall of chest, belly and pelvis, mm."""
    a, b, cy = _at(CAVITY, z)
    spine: Plane = 22 * np.exp(-((x / 30) ** 2)) * np.clip((y - 10) / 40, 0, 1)
    return _oval(x, y - cy, a, b, power=2.3) + spine


def _diaphragm(x: Plane, y: Plane) -> Plane:
    """Return the height of the diaphragm, mm: two domes, the right one higher."""
    side = (np.abs(x) - 68) / np.where(np.abs(x) > 68, 67, 140)
    dome = np.clip(1 - side**2 - ((y + 4) / 95) ** 2, 0, 1) ** 0.55
    rim: Plane = 466 - 0.36 * y
    return rim + (542 - 7 * np.tanh(x / 20) - rim) * dome


def _lung(x: Plane, y: Plane, z: Real) -> Plane:
    distance: Plane = np.maximum(_cavity(x, y, z) + 2, (_diaphragm(x, y) - z) * 0.7)
    return distance


def _liver(x: Plane, y: Plane, z: Real) -> Plane:
    def lobe(cx: float, cy: float, cz: float, a: float, b: float, c: float) -> Plane:
        s = np.sqrt(np.maximum(1 - ((z - cz) / c) ** 2, 0))
        return _oval(x - cx, y - cy, a * s, b * s, power=2.3)

    lobes = np.minimum(lobe(-74, 2, 492, 84, 100, 112), lobe(-10, -44, 508, 84, 46, 56))
    return np.maximum(np.maximum(lobes, _cavity(x, y, z) + 4), z - _diaphragm(x, y) + 3)


@cache
def _tree(organ: Callable[..., Plane], root: tuple[float, ...], n: int) -> Plane:
    """Return vessels that branch from ``root`` into an organ: (n, 8), two ends (x y z r)."""
    rng = np.random.default_rng(n)
    points = np.array(root) + rng.uniform(-150, 150, (16 * n, 3)) * (0.9, 0.8, 1.2)
    points = points[(points[:, 0] * root[0] > 0) & (organ(*points.T) < -4)][:n]
    points = np.vstack([root, points[np.argsort(np.linalg.norm(points - root, axis=1))]])
    path, load = np.zeros(len(points)), np.ones(len(points))
    parent = np.zeros(len(points), dtype=int)
    for i in range(1, len(points)):
        gaps = np.linalg.norm(points[:i] - points[i], axis=1)
        parent[i] = np.argmin(gaps + 0.35 * path[:i])
        path[i] = path[parent[i]] + gaps[parent[i]]
    for i in range(len(points) - 1, 0, -1):
        load[parent[i]] += load[i]
    radius = np.minimum(0.85 * load**0.37, 6.5)[1:, None]
    return np.hstack([points[parent[1:]], radius, points[1:], radius])


def _paint_tree(c: _Canvas, tree: Plane, hu: float) -> None:
    near = (np.minimum(tree[:, 2], tree[:, 6]) - tree[:, 3] < c.z) & (
        np.maximum(tree[:, 2], tree[:, 6]) + tree[:, 3] > c.z
    )
    parts = (_Part("vessel", False, hu, hu, 0, (tuple(s[:4]), tuple(s[4:]))) for s in tree[near])
    _paint_parts(c, parts)


@cache
def _bowel() -> tuple[_Part, ...]:
    """Return loops of small bowel, some with gas, as a curve that fills the belly."""
    t = np.linspace(0, 2 * np.pi, 260)
    x, y = 74 * np.sin(7.3 * t) + 9 * np.sin(41 * t), -26 + 36 * np.sin(11.7 * t + 1)
    z = 302 + 60 * np.sin(3.1 * t + 2) + 22 * np.sin(29 * t)
    points = [tuple(map(float, p)) for p in np.stack([x, y, z, 10.5 + 2 * np.sin(17 * t)], 1)]
    loops = [_Part("bowel", False, 85, 22, 2.5, tuple(points))]
    for k in (20, 61, 97, 140, 171, 233):
        loops.append(_Part("bowel_gas", False, -960, -960, 0, tuple(points[k : k + 3])))
    return tuple(loops)


def _skin(c: _Canvas) -> Plane:
    """Return the distance to the skin, mm, negative in the body."""
    legs = _oval(np.abs(c.x) - 86, c.y - 12, 82, 92, power=2.2)
    distance = np.full_like(c.x, 1e3)
    if c.z > 600:
        half = replace(c, x=np.abs(c.x))
        distance = np.minimum(_capsule(half, *ARM[:2])[0], _capsule(half, *ARM[1:])[0])
    if c.z < 240:
        distance = legs + max(c.z - 150, 0) * 0.5
    if 112 < c.z < 840:
        a, b, cy = _at(TORSO, c.z)
        distance = _union(distance, _oval(c.x, c.y - cy, a, b, power=2.5 if c.z < 700 else 2.1))
    for centre, axes in (((0, 8, 868), (78, 98, 86)), ((0, -36, 802), (64, 64, 74))):
        distance = _union(distance, _ball(c, centre, axes))
    nose = _ball(c, (0, -94, 808), (15, 20, 22))
    ears = _ball(replace(c, x=np.abs(c.x)), (77, 14, 832), (7, 18, 26))
    return np.minimum(_union(distance, nose, 8), ears)


def _union(a: Plane, b: Plane, blend: float = 22) -> Plane:
    h = np.maximum(blend - np.abs(a - b), 0) / blend
    return np.minimum(a, b) - h * h * blend / 4


def _paint_inside(c: _Canvas, noise: Plane) -> None:
    """Paint what the walls enclose: belly, lungs, then heart and great vessels."""
    c.hu[...] = FAT + 8 * noise
    _paint_parts(c, (*_parts(ABDOMEN)[:6], *_bowel(), *_parts(ABDOMEN)[6:9]))
    if 380 < c.z < 560:
        c.paint(_liver(c.x, c.y, c.z), 112 + 3 * noise)
        _paint_tree(c, _tree(_liver, (-34.0, -6.0, 462.0), 160), 160)
    _paint_parts(c, _parts(ABDOMEN)[9:])
    if c.z > 440:
        lung = _lung(c.x, c.y, c.z)
        c.paint(lung - 3, MUSCLE)
        c.paint(lung, LUNG + 0.5 * c.y + 14 * noise)
        for side in (-1.0, 1.0):
            _paint_tree(c, _tree(_lung, (side * 46, 14.0, 606.0), 1100), 40)
        a, b, cy = _at(MEDIASTINUM, c.z)
        middle = _oval(c.x - 4, c.y - cy, a, b, power=2.3)
        c.paint(np.maximum(middle, _diaphragm(c.x, c.y) - c.z), FAT + 25 + 20 * noise)
        _paint_parts(c, (*_parts(CHEST), *_parts(AIRWAY)))


def _paint_wall(c: _Canvas, depth: Plane, noise: Plane) -> None:
    """Paint muscle with planes of fat, the fat under the skin, and the skin."""
    coarse = _texture(c.x[0], c.y[:, 0], c.z * 0.5, seed=5, length=46)
    c.hu[...] = MUSCLE + 4 * noise
    c.paint((np.abs(coarse) - 0.09) * 12, FAT + 20, strength=0.8)
    c.paint((np.abs(noise) - 0.05) * 8, FAT + 60, strength=0.16)
    (fat,) = _at(FAT_LAYER, c.z)
    front = np.clip(-c.y / 100, -0.5, 1) * (0.5 if 200 < c.z < 460 else 0.0)
    c.paint(depth - fat * (1 + front + 0.12 * coarse), FAT + 6 * noise)
    c.paint(depth - 2.2, 30)


def _paint_ribs(c: _Canvas) -> None:
    """Paint the slanting ribs with their cartilage, and the breast bone, as a shell."""
    cy = float(_at(CAVITY, c.z)[2])
    shell = _cavity(c.x, c.y, c.z) - 4
    angle = np.arctan2(np.abs(c.x), c.y - cy - 18)  # 0 at the back, pi in front
    level = (706 - c.z - 33 * (1 - np.cos(angle))) / 21.5
    number = np.clip(np.rint(level), 0, 11).astype(int)
    reach = np.array([2.9, 2.9, 2.9, 2.9, 2.9, 2.9, 2.8, 2.6, 2.4, 2.2, 1.7, 1.2])[number]
    rib = np.hypot(shell, 0.62 * 21.5 * (level - number)) - 4.2
    rib = np.maximum(rib, np.maximum((angle - reach) * 80, (0.16 - angle) * 80))
    bone = np.where(angle < 2.25, 620.0, 120.0)
    c.paint(rib, bone)
    c.paint(rib + 2, np.where(angle < 2.25, 230.0, 95.0))
    if 520 < c.z < 662:
        plate = np.maximum(np.abs(shell) - 5.5, np.abs(c.x) - (16 if c.z < 630 else 24))
        plate = np.where(c.y < cy, plate, 1e3)
        c.paint(plate, 430)
        c.paint(plate + 2, 190)


def _paint_vertebra(c: _Canvas, base: float, height: float) -> None:
    a, b, cy = (float(v) for v in _at(SPINE, c.z))
    t = (c.z - base) / height
    solid = float(np.clip(0.5 - (abs(t - 0.6) - 0.4) * height / c.slab, 0, 1))  # the rest is disc
    body, canal = _oval(c.x, c.y - cy, a, b, power=2.4), c.y - cy - b - 8
    c.paint(body, 85)
    c.paint(body, 480, strength=solid)
    c.paint(body + 2, 165 if 0.28 < t < 0.92 else 330, strength=solid)
    ring = _oval(c.x, canal, 13, 12)
    c.paint(ring, 60)
    c.paint(ring, 480, strength=float(np.clip(1.6 - abs(t - 0.7) * 4, 0, 1)))
    wing = np.maximum(np.abs(canal - 6 - 0.15 * np.abs(c.x)) - 4, np.abs(c.x) - 1.7 * a)
    c.paint(np.maximum(wing, (abs(t - 0.75) - 0.2) * height), 420)
    slope = (t - 0.45) * height + 0.45 * (canal - 10)  # the process points down and back
    spine = np.maximum(np.abs(c.x) - 3.5, np.maximum(np.abs(canal - 22) - 14, np.abs(slope) - 7))
    c.paint(spine, 430)
    tube = _oval(c.x, canal, 9.5, 8)
    c.paint(tube, FAT + 60)
    c.paint(tube + 2, 22)
    c.paint(_oval(c.x, canal, 5, 4), 42, strength=float(c.z > 440))


def _paint_spine(c: _Canvas) -> None:
    box = c.cut(c.around(-60, 60, -10, 130))
    for base, height, n in VERTEBRAE:
        if base <= c.z < base + n * height:
            _paint_vertebra(box, base + (c.z - base) // height * height, height)
    if 183 < c.z < 296:
        a, b, cy = (float(v) for v in _at(SACRUM, c.z))
        bone = _oval(box.x, box.y - cy, a, b, power=2.2)
        box.paint(bone, 450)
        box.paint(bone + 3, 170)
        box.paint(_oval(box.x, box.y - cy - 0.6 * b, 0.3 * a, 0.3 * b), 10)


def _paint_plates(c: _Canvas) -> None:
    for name, table in (("ilium", ILIUM), ("scapula", SCAPULA)):
        if _profile(table)[0, 0] < c.z < _profile(table)[-1, 0]:
            x1, y1, x2, y2, x3, y3, r = (float(v) for v in _at(table, c.z))
            points = ((x1, y1, c.z, r), (x2, y2, c.z, r), (x3, y3, c.z, 1.3 * r))
            _paint_parts(c, (_Part(name, True, 700, 260, 2.5, points),))


def _paint_head(c: _Canvas, noise: Plane) -> None:
    """Paint the face, then the skull above its slanting base, then the brain."""
    _paint_parts(c, _parts(HEAD)[:3])
    skull = _ball(c, (0, 8, 868), (73, 93, 81))
    base = np.interp(c.y, [-90, -40, -28, 4, 36, 52, 90], [856, 850, 834, 832, 808, 804, 826])
    base = (base + (c.x / 60) ** 2 * np.where(c.y > 0, 16, 4)).astype(np.float32)
    c.paint(np.maximum(skull, base - 4 - c.z), 1050)
    c.paint(np.maximum(np.abs(skull + 3.5) - 1, base - c.z), 600)
    _paint_parts(c, _parts(HEAD)[3:-1])
    brain = np.maximum(skull + 7, base + 2 - c.z)
    c.paint(brain, 10)
    folds = np.abs(_texture(c.x[0], c.y[:, 0], c.z, seed=9, length=26))
    c.paint(np.maximum(brain + 1.5, (0.16 - folds) * 8 + np.minimum(brain + 16, 0)), 39)
    c.paint(brain + 7 + 3 * noise, 29)
    for x, y, z, a, b, h in ((9, 2, 884, 6, 34, 13), (0, 0, 868, 3, 14, 10), (0, 34, 836, 7, 6, 9)):
        c.paint(_ball(replace(c, x=np.abs(c.x)), (x, y, z), (a, b, h)), 6)
    c.paint(np.maximum(np.abs(c.x) - 1, np.maximum(brain, 862 - c.z)), 55)
    _paint_parts(c, _parts(HEAD)[-1:])


def _paint_table(c: _Canvas) -> None:
    """Paint the couch: a thin curved shell filled with foam, under a mattress."""
    hollow = (c.x / 215) ** 2
    top, bottom = 136 - 9 * hollow - c.y, c.y - 168 + 34 * hollow
    couch = np.maximum(np.maximum(top, bottom), np.abs(c.x) - 212)
    c.paint(np.maximum(np.maximum(top - 9, -top - 1), np.abs(c.x) - 205), -930)
    c.paint(couch, -20)
    c.paint(couch + 3.5, -965)


def _body_plane(z: float, y: Plane, x: Plane, *, edge: float, slab: float) -> Plane:
    """Return the body in the plane ``z`` (0 to 960) at ``y`` (ny,) and ``x`` (nx,), mm, in HU."""
    xs, ys = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    air = np.full(xs.shape, AIR, dtype=np.float32)
    scene = _Canvas(air, xs, ys, z, edge, slab)
    _paint_table(scene)
    bent = replace(
        scene,
        x=xs + 1.5 * _texture(x, y, z, seed=1, length=90),
        y=ys + 1.5 * _texture(x, y, z, seed=2, length=90),
    )
    box = bent.around(-235, 235, -125, 145)
    c, scene = bent.cut(box), scene.cut(box)
    if c.hu.size:
        _paint_body(c, scene)
    return air


def _paint_body(c: _Canvas, scene: _Canvas) -> None:
    noise = _texture(scene.x[0], scene.y[:, 0], c.z, seed=3, length=17)
    skin = _skin(c)
    wall, inside = (replace(c, hu=np.empty_like(c.x)) for _ in range(2))
    _paint_wall(wall, -skin, noise)
    if 150 < c.z < 712:
        _paint_inside(inside, noise)
        wall.paint(_cavity(c.x, c.y, c.z), inside.hu)
    else:
        _paint_parts(wall, (*_parts(CHEST)[-2:], *_parts(AIRWAY)))
    if 430 < c.z < 712:
        _paint_ribs(wall)
    _paint_plates(wall)
    _paint_parts(wall, _parts(BONE))
    _paint_spine(wall)
    if c.z > 690:
        _paint_head(wall, noise)
    c.paint(skin, wall.hu)


def _planes(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> Iterator[npt.NDArray[np.int16]]:
    n, rows, columns = shape
    if min(shape) < 1 or min(spacing) <= 0:
        raise ValueError(f"shape is {shape} and spacing {spacing} mm, expected positive numbers.")
    y = (np.arange(rows) - (rows - 1) / 2) * spacing[1]
    x = (np.arange(columns) - (columns - 1) / 2) * spacing[2]
    edge, slab = max(*spacing[1:], 0.5), min(HEIGHT / n, 8.0)
    for k in range(n):
        hu = _body_plane((k + 0.5) * HEIGHT / n, y, x, edge=edge, slab=slab)
        grain = np.random.default_rng(k).standard_normal(hu.shape, dtype=np.float32)
        grain += np.roll(grain, 1, 0) + np.roll(grain, 1, 1)
        yield np.clip(np.rint(hu + 6 * grain), -1024, 3071).astype(np.int16)


def body_ct(
    shape: tuple[int, int, int] = (160, 192, 256),
    spacing: tuple[float, float, float] = (6.0, 2.0, 2.0),
) -> npt.NDArray[np.int16]:
    """Return a whole body as a CT scanner would show it, always the same one.

    It is 960 mm long from the crown to the thighs and stretched to ``shape[0] * spacing[0]``; in
    the plane it keeps its size, about 380 mm from side to side, and lies in the middle.

    Parameters
    ----------
    shape
        Number of slices, rows and columns.
    spacing
        Distance between voxel centres along (slice, row, column), mm.

    Returns
    -------
    numpy.ndarray
        HU from -1024 to 3071, ``shape``. Slices go up to the head, rows to the back, columns to
        the patient's left: identity directions in LPS (DICOM PS3.3 C.7.6.2.1.1).

    Raises
    ------
    ValueError
        If a number in ``shape`` or ``spacing`` is not positive.

    Examples
    --------
    >>> body_ct((8, 48, 64), (120.0, 8.0, 8.0)).shape
    (8, 48, 64)
    """
    planes = _planes(shape, spacing)
    values = np.empty(shape, dtype=np.int16)
    for k, plane in enumerate(planes):
        values[k] = plane
    return values


# --- the series -------------------------------------------------------------------------------

Planes = (
    npt.NDArray[np.generic]
    | Iterable[npt.NDArray[np.generic]]
    | Callable[[int], npt.NDArray[np.generic]]
)
Overrides = Mapping[str, object] | Callable[[int, "Dataset"], None]

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
SCANNER_TAGS: Mapping[str, Mapping[str, object]] = {
    "CT": {
        "KVP": "120",
        "DataCollectionDiameter": "500.0",
        "GantryDetectorTilt": "0.0",
        "TableHeight": "152.5",
        "RotationDirection": "CW",
        "ExposureTime": "500",
        "FilterType": "BODY",
        "ConvolutionKernel": "STANDARD",
        "RescaleType": "HU",
        "WindowCenter": ["40", "-600"],
        "WindowWidth": ["400", "1500"],
        "WindowCenterWidthExplanation": ["SOFT TISSUE", "LUNG"],
    },
    "MR": {
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": "550.0",
        "EchoTime": "12.0",
        "EchoTrainLength": "1",
        "FlipAngle": "90.0",
        "MagneticFieldStrength": "1.5",
    },
    "PT": {
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["WHOLE BODY", "IMAGE"],
        "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "NORM"],
        "DecayCorrection": "START",
        "ActualFrameDuration": "120000",
        "FrameReferenceTime": "60000.0",
    },
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the slices lie."""

    n: int
    spacing: tuple[float, ...]
    """Along (slice, row, column), mm."""
    origin: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    """Rows for the z, y and x index; the first need not be square to the others."""

    @property
    def normal(self) -> Plane:
        return np.cross(self.directions[2], self.directions[1])

    @property
    def lean(self) -> float:
        """Cosine between a step along z and the slice normal."""
        return float(abs(np.dot(self.normal, self.directions[0])))

    def position(self, k: int) -> Plane:
        return np.add(self.origin, np.multiply(k * self.spacing[0], self.directions[0]))


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How values become stored numbers (DICOM PS3.3 C.11.1)."""

    slope: float
    intercept: float
    bits: int
    signed: bool

    def stored(self, plane: npt.NDArray[np.generic], k: int) -> npt.NDArray[np.generic]:
        numbers = np.rint((np.asarray(plane, dtype=float) - self.intercept) / self.slope)
        low = -(1 << self.bits - 1) if self.signed else 0
        high = low + (1 << self.bits) - 1
        if numbers.ndim != 2 or not np.all((numbers >= low) & (numbers <= high)):
            raise ValueError(
                f"plane {k} has shape {numbers.shape} and stored numbers {numbers.min():g} to "
                f"{numbers.max():g}, expected (rows, columns) and {low} to {high}. "
                "Change slope, intercept, bits_stored or signed."
            )
        return numbers.astype("<i2" if self.signed else "<u2")


def write_series(
    folder: str | Path,
    values: Planes,
    *,
    spacing: tuple[float, float, float],
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    directions: Sequence[Sequence[float]] = ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    modality: str = "CT",
    slope: float = 1.0,
    intercept: float = -1024.0,
    seed: int = 0,
    overrides: Overrides | None = None,
    n: int | None = None,
    bits_stored: int | None = None,
    signed: bool | None = None,
    prefix: str = "body",
    series_number: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write slices as a classic series, one uncompressed file each (DICOM PS3.3 A.3).

    File names are shuffled and instance numbers fall along z, as both do in clinical series.

    Parameters
    ----------
    folder
        Made if absent.
    values
        Rescaled values (HU for CT): an array (n, rows, columns), its planes one by one, or a
        function that makes plane k. Planes are asked for in turn and not kept.
    spacing
        Step between voxel centres along (slice, row, column), mm.
    origin
        Centre of voxel (0, 0, 0), LPS, mm.
    directions
        Unit vectors of the steps along z, y and x, LPS; z may lean (tilted gantry).
    modality
        "CT", "MR" or "PT".
    slope, intercept
        value = stored * slope + intercept.
    seed
        Settles UIDs and file names. Series that share it share study and frame of reference.
    overrides
        Elements by keyword, or a function of slice index and dataset that changes the dataset
        before it is written.
    n
        Number of planes; needed where ``values`` has no length.
    bits_stored, signed
        Layout of the stored numbers, at most 16 bits. Where absent, the least that an array
        needs (12 or 16 bits), else 16 bits unsigned.
    prefix
        Files are called ``prefix-0001.dcm`` and so on.
    series_number
        Tells series with the same seed and modality apart.
    progress
        Called with the numbers of slices written and to write.

    Returns
    -------
    list of Path
        The files in the order of the slices.

    Raises
    ------
    ValueError
        If the number of planes is unknown or wrong, the modality is not one of the three, or a
        value does not fit the stored numbers.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> len(write_series(mkdtemp(), np.zeros((3, 8, 8)), spacing=(5.0, 1.0, 1.0)))
    3
    """
    folder = Path(folder)
    total = _count(values, n)
    grid = _Grid(total, tuple(spacing), tuple(origin), tuple(tuple(d) for d in directions))
    encoding = _encoding(values, slope, intercept, bits_stored, signed)
    shared = _series_tags(modality, grid, seed=seed, series_number=series_number)
    names = np.random.default_rng(seed).permutation(total) + 1
    paths = [folder / f"{prefix}-{name:04d}.dcm" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    supply = map(values, range(total)) if callable(values) else iter(values)
    for k, path in enumerate(paths):
        plane = next(supply, None)
        if plane is None:
            raise ValueError(f"values ended after {k} planes, expected {total}; check n.")
        dataset = _slice_dataset(shared, grid, k)
        _put_pixels(dataset, encoding, encoding.stored(plane, k))
        _write(dataset, path, overrides, k)
        if progress is not None:
            progress(k + 1, total)
    return paths


def _count(values: Planes, n: int | None) -> int:
    length = len(values) if isinstance(values, Sized) else n
    if length is None or n not in (None, length) or length < 1:
        raise ValueError(
            f"values has {length} planes and n is {n}; expected at least one plane and, where "
            "values has no length, n."
        )
    return length


def _encoding(
    values: Planes, slope: float, intercept: float, bits: int | None, signed: bool | None
) -> _Encoding:
    low, high = 0.0, 65535.0
    if isinstance(values, np.ndarray):
        ends = (np.array([values.min(), values.max()], dtype=float) - intercept) / slope
        low, high = float(np.rint(ends.min())), float(np.rint(ends.max()))
    if signed is None:
        signed = low < 0
    if bits is None:
        bits = 12 if max(high + 0.5, -low) <= (2048 if signed else 4096) else 16
    return _Encoding(slope, intercept, bits, signed)


def _uid(*parts: object) -> str:
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["lazyvol", *map(str, parts)])


def _ds(values: Iterable[float]) -> list[str]:
    """Return decimal strings of at most 16 characters (DICOM PS3.5 6.2)."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(round(float(v), 10) + 0.0) for v in values]


def _series_tags(modality: str, grid: _Grid, *, seed: int, series_number: int) -> dict[str, object]:
    """Return what all slices share."""
    if modality not in SOP_CLASSES:
        raise ValueError(f"modality is {modality!r}, expected one of {', '.join(SOP_CLASSES)}.")
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": SOP_CLASSES[modality],
        **FICTITIOUS_PATIENT,
        **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20010203"),
        **dict.fromkeys(("StudyTime", "SeriesTime"), "101500"),
        "Modality": modality,
        "Manufacturer": "lazyvol phantom",
        "ManufacturerModelName": "Paper Scanner",
        "StudyID": "1",
        "SeriesDescription": f"Phantom {modality}",
        "ProtocolName": "Phantom",
        "BodyPartExamined": "WHOLEBODY",
        "PatientPosition": "HFS",
        "PatientWeight": "75.0",
        "StudyInstanceUID": _uid("study", seed),
        "SeriesInstanceUID": _uid("series", seed, modality, series_number),
        "FrameOfReferenceUID": _uid("frame of reference", seed),
        "PositionReferenceIndicator": "",
        "SeriesNumber": series_number,
        "AcquisitionNumber": 1,
        "SliceThickness": _ds([grid.spacing[0] * grid.lean])[0],
        "ImageOrientationPatient": _ds((*grid.directions[2], *grid.directions[1])),
        "PixelSpacing": _ds(grid.spacing[1:]),
        **SCANNER_TAGS[modality],
    }


def _slice_dataset(shared: Mapping[str, object], grid: _Grid, k: int) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in shared.items():
        setattr(dataset, keyword, value)
    number = grid.n - k
    seconds = 10 * 3600 + 16 * 60 + 0.25 * (number - 1)
    clock = f"{int(seconds // 3600):02d}{int(seconds // 60 % 60):02d}{seconds % 60:09.6f}"
    dataset.InstanceNumber = number
    dataset.AcquisitionTime = dataset.ContentTime = clock
    dataset.SOPInstanceUID = _uid("instance", dataset.SeriesInstanceUID, k)
    dataset.ImagePositionPatient = _ds(grid.position(k))
    dataset.SliceLocation = _ds([np.dot(grid.position(k), grid.normal)])[0]
    if dataset.Modality == "CT":
        current = int(180 + 90 * np.sin(7.0 * k / grid.n))
        dataset.XRayTubeCurrent, dataset.Exposure = current, current // 2
        dataset.GantryDetectorTilt = _ds([np.degrees(np.arccos(min(grid.lean, 1.0)))])[0]
    return dataset


def _put_pixels(dataset: Dataset, encoding: _Encoding, stored: npt.NDArray[np.generic]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored = 16, encoding.bits
    dataset.HighBit = encoding.bits - 1
    dataset.PixelRepresentation = int(encoding.signed)
    dataset.RescaleIntercept, dataset.RescaleSlope = _ds((encoding.intercept, encoding.slope))
    dataset.PixelData = stored.tobytes()


def _write(dataset: Dataset, path: Path, overrides: Overrides | None, k: int) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if callable(overrides):
        overrides(k, dataset)
    else:
        for keyword, value in (overrides or {}).items():
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def write_body_ct(
    folder: str | Path,
    *,
    shape: tuple[int, int, int] = (160, 192, 256),
    spacing: tuple[float, float, float] = (6.0, 2.0, 2.0),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the body of :func:`body_ct` as a CT series, one plane in memory at a time.

    Parameters
    ----------
    folder
        Made if absent.
    shape
        Number of slices, rows and columns.
    spacing
        Distance between voxel centres along (slice, row, column), mm.
    seed
        Settles UIDs and file names, not the picture.
    progress
        Called with the numbers of slices written and to write.

    Returns
    -------
    list of Path
        The files from the feet to the head. The middle of the volume is at 0, 0, 0 (LPS, mm).

    Raises
    ------
    ValueError
        If a number in ``shape`` or ``spacing`` is not positive.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> len(write_body_ct(mkdtemp(), shape=(4, 24, 32), spacing=(240.0, 16.0, 16.0)))
    4
    """
    nz, ny, nx = shape
    dz, dy, dx = spacing
    return write_series(
        folder,
        _planes(shape, spacing),
        n=nz,
        spacing=spacing,
        origin=(-(nx - 1) / 2 * dx, -(ny - 1) / 2 * dy, -(nz - 1) / 2 * dz),
        bits_stored=12,
        signed=False,
        seed=seed,
        progress=progress,
    )
