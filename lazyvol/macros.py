"""Which elements of the functional groups of multi-frame files are kept, and under which keyword.

The groups are those of DICOM PS3.3 C.7.6.16.2, C.8.13.5, C.8.15.3 and C.8.22.5. A value that
single-frame files have too goes by their keyword, so that both give the same volume.
"""

from __future__ import annotations

from lazyvol.keywords import KEYWORDS, MAPPING, WANTED
from lazyvol.nested import Wanted

__all__ = ["GROUPS", "PER_FRAME_GROUPS", "SHARED_GROUPS"]

SHARED_GROUPS = 0x52009229
PER_FRAME_GROUPS = 0x52009230


def _own(*tags: int) -> Wanted:
    """Return tags with their own keywords."""
    return {tag: KEYWORDS[tag] for tag in tags}


_CONVERTED = _own(*sorted(WANTED))
"""Attributes of the single-frame images that a file was converted from (PS3.3 C.7.6.16.2.25)."""

_FRAME_TYPE: Wanted = {0x00089007: "ImageType", 0x00089208: "ComplexImageComponent"}

GROUPS: Wanted = {
    0x00189114: {0x00189082: "EchoTime"},  # MR Echo
    0x00189112: _own(0x00180080, 0x00181314),  # MR Timing and Related Parameters
    0x00189115: {0x00189079: "InversionTime"},  # MR Modifier
    0x00189117: _own(0x00189087),  # MR Diffusion
    0x00189118: {0x00209153: "TriggerTime"} | _own(0x00209241),  # Cardiac Synchronization
    0x00189119: _own(0x00180083),  # MR Averages
    0x00189226: _FRAME_TYPE,  # MR Image Frame Type
    0x00189314: _own(0x00181100, 0x00181210),  # CT Reconstruction
    0x00189321: {  # CT Exposure
        0x00189328: "ExposureTime",
        0x00189330: "XRayTubeCurrent",
        0x00189332: "Exposure",
    },
    0x00189325: _own(0x00180060, 0x00181160),  # CT X-Ray Details
    0x00189304: _own(0x00180090, 0x00181120, 0x00181130),  # CT Acquisition Details
    0x00189329: _FRAME_TYPE,  # CT Image Frame Type
    0x00189751: _FRAME_TYPE,  # PET Frame Type
    0x00189806: _FRAME_TYPE,  # US Image Description
    0x0020930E: {0x00209301: "ImagePositionVolume"},  # Plane Position (Volume)
    0x0020930F: {0x00209302: "ImageOrientationVolume"},  # Plane Orientation (Volume)
    0x00209111: {  # Frame Content
        0x00189074: "AcquisitionDateTime",
        0x00209056: "StackID",
        0x00209128: "TemporalPositionIdentifier",
        0x00209156: "AcquisitionNumber",
        0x00209157: "DimensionIndexValues",
    },
    0x00209113: _own(0x00200032),  # Plane Position (Patient)
    0x00209116: _own(0x00200037),  # Plane Orientation (Patient)
    0x00209253: _own(0x00209245),  # Respiratory Synchronization
    0x00209310: {0x0020930D: "TemporalPositionTimeOffset"},  # Temporal Position
    0x00209170: _CONVERTED,  # Unassigned Shared Converted Attributes
    0x00209171: _CONVERTED,  # Unassigned Per-Frame Converted Attributes
    0x00289110: _own(0x00280030, 0x00180050, 0x00180088),  # Pixel Measures
    0x00289132: _own(0x00281050, 0x00281051, 0x00281055, 0x00281056),  # Frame VOI LUT
    0x00289145: _own(0x00281052, 0x00281053, 0x00281054),  # Pixel Value Transformation
    0x00409096: {  # Real World Value Mapping
        **MAPPING,
        0x004008EA: {0x00080100: "MeasurementUnits"},
        0x00409220: {0x0040A168: {0x00080104: "Quantity"}},
    },
    0x0062000A: {0x0062000B: "ReferencedSegmentNumber"},  # Segment Identification
    0x2005140F: {0x2005100E: "PhilipsScaleSlope"},  # of Philips, where its private blocks always lie
}
"""Functional groups by the tag of their sequence, with what is kept of each."""
