"""The fictitious body, painted one axial plane at a time.

Index order is (slice, row, column), lengths are mm, positions are LPS.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lazyvol.phantom.parts import (
    ABDOMEN,
    AIR,
    AIRWAY,
    ARM,
    BONE,
    CAVITY,
    CHEST,
    FAT,
    FAT_LAYER,
    HEAD,
    HEIGHT,
    ILIUM,
    LUNG,
    MEDIASTINUM,
    MUSCLE,
    SACRUM,
    SCAPULA,
    SPINE,
    TORSO,
    VERTEBRAE,
    Canvas,
    Part,
    Plane,
    Real,
    at,
    ball,
    capsule,
    oval,
    paint_parts,
    parts,
    profile,
    texture,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["body_ct", "body_planes", "check_grid"]


def _cavity(x: Plane, y: Plane, z: Real) -> Plane:
    """Return the distance to the inner wall of chest, belly and pelvis, mm."""
    a, b, cy = at(CAVITY, z)
    spine: Plane = 22 * np.exp(-((x / 30) ** 2)) * np.clip((y - 10) / 40, 0, 1)
    return oval(x, y - cy, a, b, power=2.3) + spine


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
    def lobe(centre: Sequence[float], axes: Sequence[float]) -> Plane:
        (cx, cy, cz), (a, b, c) = centre, axes
        s = np.sqrt(np.maximum(1 - ((z - cz) / c) ** 2, 0))
        return oval(x - cx, y - cy, a * s, b * s, power=2.3)

    lobes = np.minimum(lobe((-74, 2, 492), (84, 100, 112)), lobe((-10, -44, 508), (84, 46, 56)))
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


def _paint_tree(c: Canvas, tree: Plane, hu: float) -> None:
    near = (np.minimum(tree[:, 2], tree[:, 6]) - tree[:, 3] < c.z) & (
        np.maximum(tree[:, 2], tree[:, 6]) + tree[:, 3] > c.z
    )
    rows = (Part("vessel", False, hu, hu, 0, (tuple(s[:4]), tuple(s[4:]))) for s in tree[near])
    paint_parts(c, rows)


@cache
def _bowel() -> tuple[Part, ...]:
    """Return loops of small bowel, some with gas, as a curve that fills the belly."""
    t = np.linspace(0, 2 * np.pi, 260)
    x, y = 74 * np.sin(7.3 * t) + 9 * np.sin(41 * t), -26 + 36 * np.sin(11.7 * t + 1)
    z = 302 + 60 * np.sin(3.1 * t + 2) + 22 * np.sin(29 * t)
    points = [tuple(map(float, p)) for p in np.stack([x, y, z, 10.5 + 2 * np.sin(17 * t)], 1)]
    loops = [Part("bowel", False, 85, 22, 2.5, tuple(points))]
    starts = (20, 61, 97, 140, 171, 233)
    loops += [Part("bowel_gas", False, -960, -960, 0, tuple(points[k : k + 3])) for k in starts]
    return tuple(loops)


def _skin(c: Canvas) -> Plane:
    """Return the distance to the skin, mm, negative in the body."""
    legs = oval(np.abs(c.x) - 86, c.y - 12, 82, 92, power=2.2)
    distance = np.full_like(c.x, 1e3)
    if c.z > 600:
        half = replace(c, x=np.abs(c.x))
        distance = np.minimum(capsule(half, *ARM[:2])[0], capsule(half, *ARM[1:])[0])
    if c.z < 240:
        distance = legs + max(c.z - 150, 0) * 0.5
    if 112 < c.z < 840:
        a, b, cy = at(TORSO, c.z)
        distance = _union(distance, oval(c.x, c.y - cy, a, b, power=2.5 if c.z < 700 else 2.1))
    for centre, axes in (((0, 8, 868), (78, 98, 86)), ((0, -36, 802), (64, 64, 74))):
        distance = _union(distance, ball(c, centre, axes))
    nose = ball(c, (0, -94, 808), (15, 20, 22))
    ears = ball(replace(c, x=np.abs(c.x)), (77, 14, 832), (7, 18, 26))
    return np.minimum(_union(distance, nose, 8), ears)


def _union(a: Plane, b: Plane, blend: float = 22) -> Plane:
    h = np.maximum(blend - np.abs(a - b), 0) / blend
    return np.minimum(a, b) - h * h * blend / 4


def _paint_inside(c: Canvas, noise: Plane) -> None:
    """Paint what the walls enclose: belly, lungs, then heart and great vessels."""
    c.hu[...] = FAT + 8 * noise
    paint_parts(c, (*parts(ABDOMEN)[:6], *_bowel(), *parts(ABDOMEN)[6:9]))
    if 380 < c.z < 560:
        c.paint(_liver(c.x, c.y, c.z), 112 + 3 * noise)
        _paint_tree(c, _tree(_liver, (-34.0, -6.0, 462.0), 160), 160)
    paint_parts(c, parts(ABDOMEN)[9:])
    if c.z > 440:
        lung = _lung(c.x, c.y, c.z)
        c.paint(lung - 3, MUSCLE)
        c.paint(lung, LUNG + 0.5 * c.y + 14 * noise)
        for side in (-1.0, 1.0):
            _paint_tree(c, _tree(_lung, (side * 46, 14.0, 606.0), 1100), 40)
        a, b, cy = at(MEDIASTINUM, c.z)
        middle = oval(c.x - 4, c.y - cy, a, b, power=2.3)
        c.paint(np.maximum(middle, _diaphragm(c.x, c.y) - c.z), FAT + 25 + 20 * noise)
        paint_parts(c, (*parts(CHEST), *parts(AIRWAY)))


def _paint_wall(c: Canvas, depth: Plane, noise: Plane) -> None:
    """Paint muscle with planes of fat, the fat under the skin, and the skin."""
    coarse = texture(c.x[0], c.y[:, 0], c.z * 0.5, seed=5, length=46)
    c.hu[...] = MUSCLE + 4 * noise
    c.paint((np.abs(coarse) - 0.09) * 12, FAT + 20, strength=0.8)
    c.paint((np.abs(noise) - 0.05) * 8, FAT + 60, strength=0.16)
    (fat,) = at(FAT_LAYER, c.z)
    front = np.clip(-c.y / 100, -0.5, 1) * (0.5 if 200 < c.z < 460 else 0.0)
    c.paint(depth - fat * (1 + front + 0.12 * coarse), FAT + 6 * noise)
    c.paint(depth - 2.2, 30)


def _paint_ribs(c: Canvas) -> None:
    """Paint the slanting ribs with their cartilage, and the breast bone, as a shell."""
    cy = float(at(CAVITY, c.z)[2])
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


def _paint_vertebra(c: Canvas, base: float, height: float) -> None:
    a, b, cy = (float(v) for v in at(SPINE, c.z))
    t = (c.z - base) / height
    solid = float(np.clip(0.5 - (abs(t - 0.6) - 0.4) * height / c.slab, 0, 1))  # the rest is disc
    body, canal = oval(c.x, c.y - cy, a, b, power=2.4), c.y - cy - b - 8
    c.paint(body, 85)
    c.paint(body, 480, strength=solid)
    c.paint(body + 2, 165 if 0.28 < t < 0.92 else 330, strength=solid)
    ring = oval(c.x, canal, 13, 12)
    c.paint(ring, 60)
    c.paint(ring, 480, strength=float(np.clip(1.6 - abs(t - 0.7) * 4, 0, 1)))
    wing = np.maximum(np.abs(canal - 6 - 0.15 * np.abs(c.x)) - 4, np.abs(c.x) - 1.7 * a)
    c.paint(np.maximum(wing, (abs(t - 0.75) - 0.2) * height), 420)
    slope = (t - 0.45) * height + 0.45 * (canal - 10)  # the process points down and back
    spine = np.maximum(np.abs(c.x) - 3.5, np.maximum(np.abs(canal - 22) - 14, np.abs(slope) - 7))
    c.paint(spine, 430)
    tube = oval(c.x, canal, 9.5, 8)
    c.paint(tube, FAT + 60)
    c.paint(tube + 2, 22)
    c.paint(oval(c.x, canal, 5, 4), 42, strength=float(c.z > 440))


def _paint_spine(c: Canvas) -> None:
    box = c.cut(c.around(-60, 60, -10, 130))
    for base, height, n in VERTEBRAE:
        if base <= c.z < base + n * height:
            _paint_vertebra(box, base + (c.z - base) // height * height, height)
    if 183 < c.z < 296:
        a, b, cy = (float(v) for v in at(SACRUM, c.z))
        bone = oval(box.x, box.y - cy, a, b, power=2.2)
        box.paint(bone, 450)
        box.paint(bone + 3, 170)
        box.paint(oval(box.x, box.y - cy - 0.6 * b, 0.3 * a, 0.3 * b), 10)


def _paint_plates(c: Canvas) -> None:
    for name, table in (("ilium", ILIUM), ("scapula", SCAPULA)):
        if profile(table)[0, 0] < c.z < profile(table)[-1, 0]:
            x1, y1, x2, y2, x3, y3, r = (float(v) for v in at(table, c.z))
            points = ((x1, y1, c.z, r), (x2, y2, c.z, r), (x3, y3, c.z, 1.3 * r))
            paint_parts(c, (Part(name, True, 700, 260, 2.5, points),))


def _paint_head(c: Canvas, noise: Plane) -> None:
    """Paint the face, then the skull above its slanting base, then the brain."""
    paint_parts(c, parts(HEAD)[:3])
    skull = ball(c, (0, 8, 868), (73, 93, 81))
    base = np.interp(c.y, [-90, -40, -28, 4, 36, 52, 90], [856, 850, 834, 832, 808, 804, 826])
    base = (base + (c.x / 60) ** 2 * np.where(c.y > 0, 16, 4)).astype(np.float32)
    c.paint(np.maximum(skull, base - 4 - c.z), 1050)
    c.paint(np.maximum(np.abs(skull + 3.5) - 1, base - c.z), 600)
    paint_parts(c, parts(HEAD)[3:-1])
    brain = np.maximum(skull + 7, base + 2 - c.z)
    c.paint(brain, 10)
    folds = np.abs(texture(c.x[0], c.y[:, 0], c.z, seed=9, length=26))
    c.paint(np.maximum(brain + 1.5, (0.16 - folds) * 8 + np.minimum(brain + 16, 0)), 39)
    c.paint(brain + 7 + 3 * noise, 29)
    for x, y, z, a, b, h in ((9, 2, 884, 6, 34, 13), (0, 0, 868, 3, 14, 10), (0, 34, 836, 7, 6, 9)):
        c.paint(ball(replace(c, x=np.abs(c.x)), (x, y, z), (a, b, h)), 6)
    c.paint(np.maximum(np.abs(c.x) - 1, np.maximum(brain, 862 - c.z)), 55)
    paint_parts(c, parts(HEAD)[-1:])


def _paint_table(c: Canvas) -> None:
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
    scene = Canvas(air, xs, ys, z, edge, slab)
    _paint_table(scene)
    bent = replace(
        scene,
        x=xs + 1.5 * texture(x, y, z, seed=1, length=90),
        y=ys + 1.5 * texture(x, y, z, seed=2, length=90),
    )
    box = bent.around(-235, 235, -125, 145)
    c, scene = bent.cut(box), scene.cut(box)
    if c.hu.size:
        _paint_body(c, scene)
    return air


def _paint_body(c: Canvas, scene: Canvas) -> None:
    noise = texture(scene.x[0], scene.y[:, 0], c.z, seed=3, length=17)
    skin = _skin(c)
    wall, inside = (replace(c, hu=np.empty_like(c.x)) for _ in range(2))
    _paint_wall(wall, -skin, noise)
    if 150 < c.z < 712:
        _paint_inside(inside, noise)
        wall.paint(_cavity(c.x, c.y, c.z), inside.hu)
    else:
        paint_parts(wall, (*parts(CHEST)[-2:], *parts(AIRWAY)))
    if 430 < c.z < 712:
        _paint_ribs(wall)
    _paint_plates(wall)
    paint_parts(wall, parts(BONE))
    _paint_spine(wall)
    if c.z > 690:
        _paint_head(wall, noise)
    c.paint(skin, wall.hu)


def check_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """Raise ValueError unless all numbers are positive."""
    if min(shape) < 1 or min(spacing) <= 0:
        raise ValueError(f"shape is {shape} and spacing {spacing} mm, expected positive numbers.")


def body_planes(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the planes of :func:`body_ct` from the feet up, HU, (rows, columns)."""
    n, rows, columns = shape
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
    check_grid(shape, spacing)
    values = np.empty(shape, dtype=np.int16)
    for k, plane in enumerate(body_planes(shape, spacing)):
        values[k] = plane
    return values
