"""The frames of multi-frame files without functional groups, by their vectors.

Radiotherapy dose has offsets of its planes (DICOM PS3.3 C.8.8.3), nuclear medicine a number for
each frame and dimension (C.8.4.8), ultrasound and angiography times (C.7.6.5, C.7.6.6).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lazyvol.geometry import slice_normal
from lazyvol.keywords import VECTORS
from lazyvol.records import Frame, FrameSet, Value, Vector
from lazyvol.typed import HeaderError, Orientation, Reader

__all__ = ["Place", "frames_of_vectors"]

_ENHANCED = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # CT
        "1.2.840.10008.5.1.4.1.1.2.2",
        "1.2.840.10008.5.1.4.1.1.4.1",  # MR
        "1.2.840.10008.5.1.4.1.1.4.3",
        "1.2.840.10008.5.1.4.1.1.4.4",
        "1.2.840.10008.5.1.4.1.1.128.1",  # PET
        "1.2.840.10008.5.1.4.1.1.130",
        "1.2.840.10008.5.1.4.1.1.6.2",  # US volume
        "1.2.840.10008.5.1.4.1.1.30",  # parametric map
        "1.2.840.10008.5.1.4.1.1.66.4",  # segmentations
        "1.2.840.10008.5.1.4.1.1.66.7",
    }
)
"""SOP classes of which nothing can be said without functional groups (PS3.4 table B.5-1)."""

_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_CINE = frozenset(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("3", "3.1", "12.1", "12.2"))
"""Ultrasound multi-frame, angiography and fluoroscopy: frames follow each other in time."""
_NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"

_HEIGHT_ATOL = 1e-2
"""How far the first of a vector of heights may differ from the z of ImagePositionPatient, mm."""

Place = tuple[Vector | None, Orientation | None]


def frames_of_vectors(reader: Reader, *, sop_class_uid: str, count: int, detectors: Sequence[Place] = ()) -> FrameSet:
    """Return the frames of a file without functional groups.

    Parameters
    ----------
    reader
        Its header.
    sop_class_uid
        What kind of object it is.
    count
        NumberOfFrames.
    detectors
        Position and orientation of each item of DetectorInformationSequence (PS3.3 C.8.4.11).
    """
    position, orientation = reader.position(), reader.orientation()
    if sop_class_uid in _ENHANCED:
        return FrameSet(
            tuple(Frame(n) for n in range(count)),
            refusal="its frames have no functional groups, which alone say where they lie and what they mean",
        )
    if sop_class_uid == _DOSE:
        return _dose(reader, count, position, orientation)
    if sop_class_uid == _NUCLEAR:
        return _nuclear(reader, count, detectors)
    place = [(position, orientation)] * count
    times = _times(reader, count) if count > 1 else ()
    if times:
        return FrameSet(_frames(reader, place, [(("FrameReferenceTime", t),) for t in times]))
    if count > 1 and sop_class_uid in _CINE:
        return FrameSet(_frames(reader, place, [(("TemporalPositionIdentifier", n + 1),) for n in range(count)]))
    return FrameSet(_frames(reader, place, [()] * count))


def _frames(
    reader: Reader, places: Sequence[Place], values: Sequence[tuple[tuple[str, Value], ...]]
) -> tuple[Frame, ...]:
    spacing, slope = reader.pixel_spacing(), reader.slope()
    intercept = reader.number("RescaleIntercept") or 0.0
    return tuple(
        Frame(n, position, orientation, spacing, slope, intercept, values=tuple(own))
        for n, ((position, orientation), own) in enumerate(zip(places, values, strict=True))
    )


def _moved(position: Vector, orientation: Orientation, distance: float) -> Vector:
    x, y, z = (p + distance * float(n) for p, n in zip(position, slice_normal(orientation), strict=True))
    return x, y, z


def _dose(reader: Reader, count: int, position: Vector | None, orientation: Orientation | None) -> FrameSet:
    """Place the planes of a dose by GridFrameOffsetVector, and scale it by DoseGridScaling."""
    spacing, slope = reader.pixel_spacing(), reader.slope("DoseGridScaling")
    offsets = reader.numbers("GridFrameOffsetVector") or ()
    if not reader.number("DoseGridScaling"):
        refusal = "its DoseGridScaling is absent or 0, so its stored numbers are no dose"
        return FrameSet(tuple(Frame(n) for n in range(count)), refusal=refusal)
    if count == 1:
        return FrameSet((Frame(0, position, orientation, spacing, slope),))
    if len(offsets) != count or len(set(offsets)) < count:
        said = "the same for several" if len(offsets) == count else f"{len(offsets)} numbers"
        refusal = f"its GridFrameOffsetVector does not place its {count} frames ({said})"
        return FrameSet(tuple(Frame(n, slope=slope) for n in range(count)), refusal=refusal)
    if position is None or orientation is None:
        places: list[Place] = [(None, None)] * count
    elif not offsets[0]:
        places = [(_moved(position, orientation, o), orientation) for o in offsets]
    elif max(abs(orientation[2]), abs(orientation[5])) > 1e-4 or abs(offsets[0] - position[2]) > _HEIGHT_ATOL:
        refusal = (
            f"its GridFrameOffsetVector begins with {offsets[0]:g}: neither 0, for offsets along the normal, nor the "
            f"height of an axial first plane ({position[2]:g} mm)"
        )
        return FrameSet(tuple(Frame(n, slope=slope) for n in range(count)), refusal=refusal)
    else:
        places = [((position[0], position[1], o), orientation) for o in offsets]
    frames = tuple(Frame(n, p, o, spacing, slope) for n, (p, o) in enumerate(places))
    return FrameSet(frames)


def _nuclear(reader: Reader, count: int, detectors: Sequence[Place]) -> FrameSet:
    """Tell the frames of nuclear medicine apart by the vectors that FrameIncrementPointer names."""
    pointers = reader.shorts("FrameIncrementPointer")
    named = {group << 16 | element for group, element in zip(pointers[::2], pointers[1::2], strict=False)}
    tags = {tag for k, tag in VECTORS.items() if reader.has(k)}
    vectors = {k: reader.shorts(k) for k, tag in VECTORS.items() if reader.has(k) and (not named or tag in named)}
    wrong = [f"its {k} has {len(v)} numbers for {count} frames" for k, v in vectors.items() if len(v) != count]
    wrong += [f"its FrameIncrementPointer names {k}, which is absent" for k, t in VECTORS.items() if t in named - tags]
    if wrong:
        return FrameSet(_frames(reader, [(None, None)] * count, [()] * count), refusal="; ".join(wrong))
    slices = vectors.pop("SliceVector", ())
    places = _nuclear_places(reader, slices, vectors.get("DetectorVector", ()), detectors, count)
    varying = {k: v for k, v in vectors.items() if len(set(v)) > 1}
    values = [tuple((k, int(v[n])) for k, v in varying.items()) for n in range(count)]
    return FrameSet(_frames(reader, places, values))


def _nuclear_places(
    reader: Reader, slices: Sequence[int], at: Sequence[int], detectors: Sequence[Place], count: int
) -> list[Place]:
    """Place reconstructed slices; projections have no place, for they look through the patient."""
    step = reader.number("SpacingBetweenSlices")
    if not slices or not detectors or (step is None and len(set(slices)) > 1):
        return [(None, None)] * count
    found: list[Place] = []
    for n, number in enumerate(slices):
        which = (at[n] if at else 1) - 1
        if not 0 <= which < len(detectors):
            raise HeaderError(f"DetectorVector names detector {which + 1} of {len(detectors)}", damaged=True)
        position, orientation = detectors[which]
        if position is None or orientation is None:
            return [(None, None)] * count
        found.append((_moved(position, orientation, (number - 1) * (step or 0.0)), orientation))
    return found


def _times(reader: Reader, count: int) -> tuple[float, ...]:
    """Return when each frame was shown since the first, ms; empty if the header does not say."""
    increments = reader.numbers("FrameTimeVector")
    if increments and len(increments) == count:
        return tuple(itertools.accumulate((0.0, *increments[1:])))
    if increments:
        reader.malformed.append(("FrameTimeVector", f"{len(increments)} numbers for {count} frames"))
    step = reader.number("FrameTime")
    if step is not None and step < 0:
        reader.malformed.append(("FrameTime", f"{step:g}"))
        step = None
    rate = reader.number("CineRate") or reader.number("RecommendedDisplayFrameRate")
    if not step and rate:
        step = 1000.0 / rate
    return tuple(n * step for n in range(count)) if step else ()
