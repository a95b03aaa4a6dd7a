"""What the metadata of an OME-Zarr image says: its axes, its levels, and where their voxels lie.

Reads versions 0.3 to 0.6 as plain JSON; nothing here opens a store. A level is placed by one matrix,
into which its own transformations and those of the whole image are multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lazyvol.errors import OptionError, StoreError

__all__ = ["DIRECTIONS", "LENGTHS", "TIMES", "Axis", "Level", "image_metadata", "read_level"]

Array = npt.NDArray[np.float64]

_PREFIXES: Final = MappingProxyType(
    {"yocto": -24, "zepto": -21, "atto": -18, "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3}
    | {"centi": -2, "deci": -1, "": 0, "deca": 1, "hecto": 2, "kilo": 3, "mega": 6, "giga": 9, "tera": 12}
    | {"peta": 15, "exa": 18, "zetta": 21, "yotta": 24}
)


def _powers(word: str, exponent: int) -> dict[str, float]:
    """Return the unit with each prefix, as powers of ten that are exact where a number can be."""
    return {prefix + word: float(f"1e{power + exponent}") for prefix, power in _PREFIXES.items()}


LENGTHS: Final = MappingProxyType(
    _powers("meter", 3)
    | _powers("metre", 3)
    | {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "\N{MICRO SIGN}m": 1e-3, "micron": 1e-3, "nm": 1e-6}
    | {"angstrom": 1e-7, "inch": 25.4, "foot": 304.8, "yard": 914.4, "mile": 1609344.0, "parsec": 3.0856775814913673e19}
)
"""The words of OME-Zarr for units of length, and usual symbols, in mm."""

TIMES: Final = MappingProxyType(
    _powers("second", 0) | {"s": 1.0, "ms": 1e-3, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
)
"""The words of OME-Zarr for units of time, in s."""

DIRECTIONS: Final = MappingProxyType(
    {
        "right-to-left": (1.0, 0.0, 0.0),
        "left-to-right": (-1.0, 0.0, 0.0),
        "anterior-to-posterior": (0.0, 1.0, 0.0),
        "posterior-to-anterior": (0.0, -1.0, 0.0),
        "ventral-to-dorsal": (0.0, 1.0, 0.0),
        "dorsal-to-ventral": (0.0, -1.0, 0.0),
        "inferior-to-superior": (0.0, 0.0, 1.0),
        "superior-to-inferior": (0.0, 0.0, -1.0),
        "caudal-to-cranial": (0.0, 0.0, 1.0),
        "cranial-to-caudal": (0.0, 0.0, -1.0),
    }
)
"""The LPS direction of each orientation that has one, for bipeds and quadrupeds alike (DICOM PS3.3 C.7.6.2.1.1).
The other words of RFC-4, such as rostral, palmar or apical, mean another direction in each part of a body."""

_KINDS: Final = MappingProxyType({"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"})
"""What an axis is by its name, where it has no type."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an array, or of a coordinate system."""

    name: str
    """As the store has it."""

    kind: str
    """``space``, ``time``, ``channel``, or what the store calls it."""

    unit: str = ""
    """Word for its unit; empty where there is none."""

    orientation: str = ""
    """Anatomical word of RFC-4; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image."""

    path: str
    """Where its array is in the group of the image."""

    axes: tuple[Axis, ...]
    """Of the array, in its order."""

    system: tuple[Axis, ...]
    """Axes of the coordinate system that its voxels are placed in."""

    matrix: tuple[tuple[float, ...], ...]
    """From (index, 1) to (position in the system, 1)."""


def image_metadata(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the part of a group's attributes that describes an OME-Zarr image; None if there is none."""
    for found in (attributes.get("ome"), attributes):
        if isinstance(found, Mapping) and "multiscales" in found:
            return found
    return None


def read_level(metadata: Mapping[str, Any], level: int, where: str) -> Level:
    """Return what an OME-Zarr image says of one level.

    Parameters
    ----------
    metadata
        What `image_metadata` found.
    level
        Number of the level, 0 for full resolution.
    where
        Name of the image, for messages.

    Raises
    ------
    OptionError
        If there is no such level.
    StoreError
        If the metadata cannot be understood; names the entry.
    """
    images = metadata["multiscales"]
    if not isinstance(images, list) or not images or not isinstance(images[0], Mapping):
        raise StoreError(f"multiscales of {where} is {images!r}, and should be a list with one image. {_REMEDY}")
    image = images[0]
    datasets = image.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise StoreError(f"datasets of {where} is {datasets!r}, and should be a list of levels. {_REMEDY}")
    number: Any = level
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(datasets):
        raise OptionError(f"level={level!r}: {where} has the levels 0 to {len(datasets) - 1}. Give one of these.")
    dataset, place = datasets[level], f"datasets[{level}] of {where}"
    if not isinstance(dataset, Mapping) or not isinstance(dataset.get("path"), str):
        raise StoreError(f"{place} is {dataset!r}, which has no path to an array. {_REMEDY}")
    steps = _listed(dataset, place)
    if not steps:
        raise StoreError(f"{place} has no coordinateTransformations, so the size of its voxels is not known. {_REMEDY}")
    if "coordinateSystems" in image:
        return _in_system(image, dataset["path"], steps, where, place)
    axes = _axes(image.get("axes"), where)
    if not any(isinstance(s, Mapping) and s.get("type") == "scale" for s in steps):
        raise StoreError(f"coordinateTransformations of {place} has no scale, only {steps!r}. {_REMEDY}")
    matrix = _product(_listed(image, where), axes, where) @ _product(steps, axes, place)
    return Level(dataset["path"], axes, axes, _rows(matrix))


_REMEDY: Final = "Mend the metadata of the store, or write it again with the tool that made it."


def _in_system(image: Mapping[str, Any], path: str, steps: list[Any], where: str, place: str) -> Level:
    """Return a level of version 0.6: in an anatomical system if one is reached, else in its intrinsic one."""
    systems = _systems(image["coordinateSystems"], where)
    name = _name(steps[0].get("output")) if isinstance(steps[0], Mapping) else ""
    if name not in systems:
        raise StoreError(f"{place} leads to the coordinate system {name!r}, and there are {list(systems)}. {_REMEDY}")
    axes = systems[name]
    matrix = _product(steps[:1], axes, place)
    for step in (s for s in _listed(image, where) if isinstance(s, Mapping)):
        to = _name(step.get("output"))
        if _name(step.get("input")) != name or not _is_anatomical(systems.get(to, ())):
            continue
        if {_type(step)} | {_type(s) for s in step.get("transformations", ())} <= set(_MATRICES) | {"sequence"}:
            further = _product([step], axes, f"{to!r} of {where}", positive=False)
            return Level(path, axes, systems[to], _rows(further @ matrix))
    return Level(path, axes, axes, _rows(matrix))


def _type(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, Mapping) else ""


def _systems(entries: Any, where: str) -> dict[str, tuple[Axis, ...]]:
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise StoreError(f"coordinateSystems of {where} is {entries!r}, and should be a list of systems. {_REMEDY}")
    return {
        str(e.get("name")): _axes(e.get("axes"), f"the coordinate system {e.get('name')!r} of {where}") for e in entries
    }


def _name(of: Any) -> str:
    """Return the coordinate system that an input or output means: its name, or an object that has it."""
    return str(of.get("name") if isinstance(of, Mapping) else of)


def _is_anatomical(axes: Sequence[Axis]) -> bool:
    """Whether the axes in space have units, and directions in the patient, each its own."""
    space = [a for a in axes if a.kind == "space"]
    towards = {tuple(np.abs(DIRECTIONS[a.orientation])) for a in space if a.orientation in DIRECTIONS}
    return len(space) == len(towards) == 3 and all(a.unit in LENGTHS for a in space)


def _axes(entries: Any, where: str) -> tuple[Axis, ...]:
    if not isinstance(entries, list) or not entries:
        raise StoreError(
            f"axes of {where} is {entries!r}, and should be a list of axes, as OME-Zarr has since 0.3. {_REMEDY}"
        )
    axes = tuple(_axis(e, f"axes[{n}] of {where}") for n, e in enumerate(entries))
    names = [a.name for a in axes]
    if len(set(names)) < len(names):
        raise StoreError(f"axes of {where} are named {names}, and each should have a name of its own. {_REMEDY}")
    return axes


def _axis(entry: Any, place: str) -> Axis:
    found = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str) or not found["name"]:
        raise StoreError(f"{place} is {entry!r}, which has no name. {_REMEDY}")
    name, turned = found["name"], found.get("orientation")
    word = turned.get("value") if isinstance(turned, Mapping) and turned.get("type") == "anatomical" else ""
    return Axis(name, str(found.get("type") or _KINDS.get(name, "")), str(found.get("unit") or ""), str(word or ""))


def _listed(of: Mapping[str, Any], place: str) -> list[Any]:
    found = of.get("coordinateTransformations") or []
    if not isinstance(found, list):
        raise StoreError(f"coordinateTransformations of {place} is {found!r}, and should be a list. {_REMEDY}")
    return found


def _product(steps: Sequence[Any], axes: Sequence[Axis], place: str, *, positive: bool = True) -> Array:
    """Return the matrix of transformations that follow one another."""
    matrix = np.eye(len(axes) + 1)
    for step in steps:
        kind = _type(step)
        if kind == "sequence":
            matrix = _product(step.get("transformations", []), axes, place, positive=positive) @ matrix
            continue
        if kind not in _MATRICES:
            raise StoreError(
                f"a transformation of {place} is of type {kind!r}, and lazyvol knows {', '.join(_MATRICES)} and "
                f"sequence. {_REMEDY}"
            )
        if kind != "identity":
            matrix = _matrix(kind, _numbers(step, kind, len(axes), place), axes, place, positive) @ matrix
    return matrix


def _matrix(kind: str, numbers: Array, axes: Sequence[Axis], place: str, positive: bool) -> Array:
    """Return the matrix of one transformation."""
    n = len(axes)
    found = np.eye(n + 1)
    in_space = np.array([a.kind == "space" for a in axes])
    if kind == "scale":
        wrong = in_space & ~((numbers > 0 if positive else numbers != 0) & np.isfinite(numbers))
        if wrong.any():
            names = ", ".join(a.name for a, is_wrong in zip(axes, wrong, strict=True) if is_wrong)
            raise StoreError(f"scale of {place} is {numbers.tolist()}: that of {names} should be above 0. {_REMEDY}")
        found[range(n), range(n)] = np.where(np.isfinite(numbers), numbers, 0.0)  # an axis without a step has no labels
        return found
    if not np.isfinite(numbers[..., in_space] if kind == "translation" else numbers).all():
        raise StoreError(f"{kind} of {place} is {numbers.tolist()}, and should be finite. {_REMEDY}")
    if kind == "translation":
        found[:n, n] = np.where(np.isfinite(numbers), numbers, 0.0)
    elif kind == "mapAxis":
        found[:n, :n] = np.eye(n)[numbers.astype(int)]
    else:
        found[:n, : numbers.shape[1]] = numbers
    return found


_MATRICES: Final = ("identity", "scale", "translation", "rotation", "affine", "mapAxis")


def _numbers(step: Mapping[str, Any], kind: str, n: int, place: str) -> Array:
    """Return the numbers of a transformation, which should have the right shape."""
    shape = {"rotation": (n, n), "affine": (n, n + 1)}.get(kind, (n,))
    try:
        numbers = np.array(step.get(kind))
        fits = numbers.shape == shape and numbers.dtype.kind in "iuf"
    except ValueError:  # rows of different lengths
        fits = False
    if fits and kind == "mapAxis":
        fits = sorted(numbers.tolist()) == list(range(n))
    if not fits:
        what = (
            f"the axes 0 to {n - 1} in another order"
            if kind == "mapAxis"
            else f"{' times '.join(map(str, shape))} numbers"
        )
        raise StoreError(f"{kind} of {place} is {step.get(kind)!r}, and should be {what}. {_REMEDY}")
    return numbers.astype(float)


def _rows(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)
