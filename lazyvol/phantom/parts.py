"""What the fictitious body is made of, with the brushes that paint it.

z runs from 0 (thigh) to 960 (crown), x = 0 is the midline, and the patient lies on the back with
raised arms. Lengths are mm, positions LPS. Contrast is portal venous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Plane = npt.NDArray[np.floating[Any]]  # of either precision
Real = float | Plane
Window = tuple[slice, slice]

HEIGHT = 960.0  # of the tables, mm
AIR, FAT, MUSCLE, LUNG = -1000.0, -100.0, 58.0, -860.0

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


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One row of a table of parts."""

    name: str
    both: bool
    hu: float
    core: float
    inset: float
    points: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
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

    def cut(self, box: Window) -> Canvas:
        """Return a piece that shares the pixels."""
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
def profile(table: str) -> Plane:
    """Return the numbers of a table, one row for each height."""
    return np.array([[float(v) for v in row.split()] for row in table.split(";")])


def at(table: str, z: Real) -> list[Plane]:
    """Return the columns of a table at heights ``z``, with rounded corners."""
    keys, *columns = profile(table).T
    heights = np.add.outer((-9.0, -3.0, 3.0, 9.0), z)
    return [np.asarray(np.interp(heights, keys, c).mean(axis=0)) for c in columns]


@cache
def parts(table: str) -> tuple[Part, ...]:
    """Return the rows of a table of parts."""
    return tuple(_part(row.split()) for row in table.strip().splitlines())


def _part(words: Sequence[str]) -> Part:
    numbers = [float(v) for v in words[2:]]
    width = 6 if len(numbers) == 9 else 4
    points = tuple(tuple(numbers[i : i + width]) for i in range(3, len(numbers), width))
    return Part(words[0], words[1] == "both", numbers[0], numbers[1], numbers[2], points)


@cache
def waves(seed: int, length: float, n: int = 24) -> Plane:
    """Return wave vectors along x, y, z in radians per mm, and phases: (4, n)."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(3, n))
    ways *= 2 * np.pi / length / np.linalg.norm(ways, axis=0) * rng.uniform(0.6, 1.5, n)
    return np.vstack([ways, rng.uniform(0, 2 * np.pi, n)])


def texture(x: Plane, y: Plane, z: float, *, seed: int, length: float) -> Plane:
    """Return smooth noise of unit variance from ``x`` (nx,) and ``y`` (ny,), as sum of waves."""
    kx, ky, kz, phase = waves(seed, length)
    a, b = np.outer(y, ky) + kz * z + phase, np.outer(kx, x)
    total: Plane = np.hstack([np.cos(a), -np.sin(a)]) @ np.vstack([np.cos(b), np.sin(b)])
    return np.asarray(total * np.sqrt(2 / kx.size), dtype=np.float32)


def oval(x: Plane, y: Plane, a: Real, b: Real, *, power: float = 2.0) -> Plane:
    """Return the distance to a superellipse around 0, along the ray, mm, negative inside."""
    radius: Plane = np.hypot(x, y) + 1e-3
    a, b = np.maximum(a, 1e-2), np.maximum(b, 1e-2)
    u, v = x / a, y / b
    f = np.hypot(u, v) if power == 2 else (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    return radius - radius / np.maximum(f, 1e-4)


def ball(c: Canvas, centre: Sequence[float], axes: Sequence[float]) -> Plane:
    """Return the distance to an ellipsoid, mm; large where the plane misses it."""
    s = np.sqrt(max(1 - ((c.z - centre[2]) / axes[2]) ** 2, 0.0))
    if s == 0:
        return np.full_like(c.x, 1e3)
    return oval(c.x - centre[0], c.y - centre[1], axes[0] * s, axes[1] * s)


def capsule(c: Canvas, p: Sequence[float], q: Sequence[float]) -> tuple[Plane, Plane]:
    """Return the distance to a tapered tube from p to q (x y z r), and y above its axis, mm."""
    (px, py, pz, pr), (qx, qy, qz, qr) = p, q
    dx, dy, dz = qx - px, qy - py, qz - pz
    x, y, z = c.x - px, c.y - py, c.z - pz
    t = np.clip((x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz + 1e-6), 0, 1)
    across = y - t * dy
    return np.sqrt((x - t * dx) ** 2 + across**2 + (z - t * dz) ** 2) - (pr + t * (qr - pr)), across


def pieces(c: Canvas, part: Part) -> Iterator[tuple[Canvas, Plane]]:
    """Yield the piece of the plane and the distance for each part of a part in this plane."""
    if len(part.points[0]) == 6:
        x, y, z, *axes = part.points[0]
        if abs(c.z - z) < axes[2]:
            cut = c.cut(c.around(x - axes[0], x + axes[0], y - axes[1], y + axes[1]))
            yield cut, ball(cut, (x, y, z), axes)
        return
    for p, q in zip(part.points, part.points[1:], strict=False):
        (x0, y0, z0), (x1, y1, z1) = (
            tuple(f(u - s * p[3], v - s * q[3]) for u, v in zip(p[:3], q[:3], strict=True))
            for s, f in ((1, min), (-1, max))
        )
        if z0 < c.z < z1:
            cut = c.cut(c.around(x0, x1, y0, y1))
            distance, across = capsule(cut, p, q)
            gas = part.name.endswith("_gas")  # rises to the front: the patient is supine
            yield cut, np.maximum(distance, across + 1) if gas else distance


def mirror(part: Part) -> Part:
    """Return the part on the other side."""
    return replace(part, points=tuple((-p[0], *p[1:]) for p in part.points))


def paint_parts(c: Canvas, rows: Iterable[Part]) -> None:
    """Paint one part over the other, each with its core."""
    for part in rows:
        for one in (part, mirror(part)) if part.both else (part,):
            cuts = list(pieces(c, one))
            for cut, distance in cuts:
                cut.paint(distance, one.hu)
            for cut, distance in cuts if one.inset else ():
                cut.paint(distance + one.inset, one.core)
