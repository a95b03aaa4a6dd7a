"""Which header elements an Instance is made of, by DICOM keyword (PS3.6), and their units.

What is kept is an allow-list: no identifier, no date and no free text is on it but WindowCenterWidthExplanation, which
`privacy` looks at before it goes into a store.
"""

from __future__ import annotations

import re

__all__ = [
    "BINARY",
    "CHARACTER_SET",
    "CONTEXT",
    "DESCRIPTION",
    "EXTENDED_OFFSETS",
    "FRAME_NUMBERS",
    "FRAME_STORED",
    "FRAME_WORDS",
    "GROUP_BINARY",
    "HIDDEN",
    "INDEX",
    "INTEGERS",
    "KEYWORDS",
    "MAPPING",
    "NESTED",
    "NUMBERS",
    "PARAMETRIC_MAP",
    "PET_UNITS",
    "PIXELS",
    "STORED",
    "TAGS",
    "UNITS",
    "UPTAKE",
    "VECTORS",
    "WANTED",
    "WORDS",
    "snake_case",
]

NUMBERS = {
    "AcquisitionNumber": 0x00200012,
    "ActualFrameDuration": 0x00181242,
    "DataCollectionDiameter": 0x00180090,
    "DiffusionBValue": 0x00189087,
    "DoubleFloatPixelPaddingRangeLimit": 0x00280125,
    "DoubleFloatPixelPaddingValue": 0x00280123,
    "EchoNumbers": 0x00180086,
    "EchoTime": 0x00180081,
    "Exposure": 0x00181152,
    "ExposureTime": 0x00181150,
    "FlipAngle": 0x00181314,
    "FloatPixelPaddingRangeLimit": 0x00280124,
    "FloatPixelPaddingValue": 0x00280122,
    "FrameReferenceTime": 0x00541300,
    "GantryDetectorTilt": 0x00181120,
    "ImagingFrequency": 0x00180084,
    "InversionTime": 0x00180082,
    "KVP": 0x00180060,
    "MagneticFieldStrength": 0x00180087,
    "NominalPercentageOfCardiacPhase": 0x00209241,
    "NominalPercentageOfRespiratoryPhase": 0x00209245,
    "NumberOfAverages": 0x00180083,
    "ReconstructionDiameter": 0x00181100,
    "RepetitionTime": 0x00180080,
    "SliceLocation": 0x00201041,
    "SliceThickness": 0x00180050,
    "SpacingBetweenSlices": 0x00180088,
    "TableHeight": 0x00181130,
    "TemporalPositionIdentifier": 0x00200100,
    "TriggerTime": 0x00181060,
    "WindowCenter": 0x00281050,
    "WindowWidth": 0x00281051,
    "XRayTubeCurrent": 0x00181151,
}
"""Numbers kept of each header, by keyword: no identifier, no date, no free text."""

INTEGERS = frozenset(
    {
        "AcquisitionNumber",
        "EchoNumbers",
        "Exposure",
        "ExposureTime",
        "TemporalPositionIdentifier",
        "XRayTubeCurrent",
    }
)
"""Those of `NUMBERS` that are integers (VR IS)."""

BINARY = {
    "DiffusionBValue": "d",
    "DoubleFloatPixelPaddingRangeLimit": "d",
    "DoubleFloatPixelPaddingValue": "d",
    "FloatPixelPaddingRangeLimit": "f",
    "FloatPixelPaddingValue": "f",
    "NominalPercentageOfCardiacPhase": "f",
    "NominalPercentageOfRespiratoryPhase": "f",
}
"""Those of `NUMBERS` that are binary (VR FD or FL), with their struct code."""

GROUP_BINARY = {
    **BINARY,
    "AcquisitionNumber": "H",
    "DimensionIndexValues": "I",
    "DoubleFloatRealWorldValueFirstValueMapped": "d",
    "DoubleFloatRealWorldValueLastValueMapped": "d",
    "EchoTime": "d",
    "Exposure": "d",
    "ExposureTime": "d",
    "ImageOrientationVolume": "d",
    "ImagePositionVolume": "d",
    "InversionTime": "d",
    "PhilipsScaleSlope": "f",
    "RealWorldValueIntercept": "d",
    "RealWorldValueLUTData": "d",
    "RealWorldValueSlope": "d",
    "ReferencedSegmentNumber": "H",
    "TemporalPositionIdentifier": "I",
    "TemporalPositionTimeOffset": "d",
    "TriggerTime": "d",
    "XRayTubeCurrent": "d",
}
"""Numbers that are binary in functional groups (VR FD, FL, UL or US), with their struct code."""

MAPPING = {
    0x00409210: "LUTLabel",
    0x00409211: "RealWorldValueLastValueMapped",
    0x00409212: "RealWorldValueLUTData",
    0x00409213: "DoubleFloatRealWorldValueLastValueMapped",
    0x00409214: "DoubleFloatRealWorldValueFirstValueMapped",
    0x00409216: "RealWorldValueFirstValueMapped",
    0x00409224: "RealWorldValueIntercept",
    0x00409225: "RealWorldValueSlope",
}
"""What is kept of an item of RealWorldValueMappingSequence (PS3.3 C.7.6.16.2.11), besides its codes."""

FRAME_NUMBERS = (
    "DoubleFloatRealWorldValueFirstValueMapped",
    "DoubleFloatRealWorldValueLastValueMapped",
    "PhilipsScaleSlope",
    "RealWorldValueIntercept",
    "RealWorldValueLUTData",
    "RealWorldValueSlope",
    "ReferencedSegmentNumber",
    "TemporalPositionTimeOffset",
)
"""Numbers kept of functional groups and of mappings to values of the real world."""

FRAME_WORDS = ("LUTLabel", "MeasurementUnits", "Quantity", "StackID")
"""Words kept of these."""

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
"""SOP class of parametric maps, whose values are those of the real world (PS3.4 table B.5-1)."""

INDEX = "DimensionIndex:"
"""What the keyword of a dimension index begins with among the values of a frame; its pointer's keyword follows."""

FRAME_STORED = ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped")
"""Stored numbers (US or SS as PixelRepresentation says) kept of functional groups and mappings."""

HIDDEN = frozenset({*FRAME_NUMBERS, *FRAME_STORED, *FRAME_WORDS, "DimensionIndexValues"})
"""Values that place a frame, or say what its numbers mean; they are no coordinates."""

UNITS = {
    "ActualFrameDuration": "ms",
    "DataCollectionDiameter": "mm",
    "DiffusionBValue": "s/mm2",
    "EchoTime": "ms",
    "Exposure": "mAs",
    "ExposureTime": "ms",
    "FlipAngle": "degree",
    "FrameReferenceTime": "ms",
    "GantryDetectorTilt": "degree",
    "ImagingFrequency": "MHz",
    "InversionTime": "ms",
    "KVP": "kV",
    "MagneticFieldStrength": "T",
    "NominalPercentageOfCardiacPhase": "%",
    "NominalPercentageOfRespiratoryPhase": "%",
    "ReconstructionDiameter": "mm",
    "RepetitionTime": "ms",
    "SliceLocation": "mm",
    "SliceThickness": "mm",
    "SpacingBetweenSlices": "mm",
    "TableHeight": "mm",
    "TriggerTime": "ms",
    "XRayTubeCurrent": "mA",
}
"""Units of kept numbers, by keyword (DICOM PS3.3)."""

PET_UNITS = {
    "1CM": "1/cm",
    "BQML": "Bq/ml",
    "CM2": "cm2",
    "CM2ML": "cm2/ml",
    "CNTS": "counts",
    "CPS": "counts/s",
    "GML": "g/ml",
    "MGMINML": "mg/min/ml",
    "MLG": "ml/g",
    "MLMING": "ml/min/g",
    "MLMINML": "ml/min/ml",
    "MLML": "ml/ml",
    "NONE": "",
    "PCNT": "%",
    "PROPCNTS": "proportional to counts",
    "PROPCPS": "proportional to counts/s",
    "STDDEV": "standard deviations",
    "UMOLMINML": "umol/min/ml",
    "UMOLML": "umol/ml",
}
"""What the defined terms of Units (0054,1001) mean (PS3.3 C.8.9.1.1.3)."""

WORDS = {
    "BodyPartExamined": 0x00180015,
    "ComplexImageComponent": 0x00089208,
    "ConvolutionKernel": 0x00181210,
    "DecayCorrection": 0x00541102,
    "DoseType": 0x30040004,
    "DoseUnits": 0x30040002,
    "FilterType": 0x00181160,
    "ImageType": 0x00080008,
    "LossyImageCompression": 0x00282110,
    "Manufacturer": 0x00080070,
    "ManufacturerModelName": 0x00081090,
    "Modality": 0x00080060,
    "PatientPosition": 0x00185100,
    "RescaleType": 0x00281054,
    "ScanningSequence": 0x00180020,
    "SegmentationFractionalType": 0x00620010,
    "SegmentationType": 0x00620001,
    "SequenceVariant": 0x00180021,
    "Units": 0x00541001,
    "VOILUTFunction": 0x00281056,
    "WindowCenterWidthExplanation": 0x00281055,
}
"""Words kept of each header, by keyword, as `NUMBERS`."""

VECTORS = {
    "EnergyWindowVector": 0x00540010,
    "DetectorVector": 0x00540020,
    "PhaseVector": 0x00540030,
    "RotationVector": 0x00540050,
    "RRIntervalVector": 0x00540060,
    "TimeSlotVector": 0x00540070,
    "AngularViewVector": 0x00540090,
    "TimeSliceVector": 0x00540100,
    "SliceVector": 0x00540080,
}
"""Vectors with a number for each frame of a nuclear medicine file (PS3.3 C.8.4.8), in the order of the axes."""

STORED = {"PixelPaddingValue": 0x00280120, "PixelPaddingRangeLimit": 0x00280121}
"""Stored numbers (US or SS as PixelRepresentation says) kept of each header."""

OTHERS = {
    "AcquisitionDate": 0x00080022,
    "AcquisitionDateTime": 0x0008002A,
    "AcquisitionTime": 0x00080032,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "CineRate": 0x00180040,
    "Columns": 0x00280011,
    "DoseGridScaling": 0x3004000E,
    "FrameIncrementPointer": 0x00280009,
    "FrameOfReferenceUID": 0x00200052,
    "FrameTime": 0x00181063,
    "FrameTimeVector": 0x00181065,
    "GridFrameOffsetVector": 0x3004000C,
    "HighBit": 0x00280102,
    "ImageOrientationPatient": 0x00200037,
    "ImagePositionPatient": 0x00200032,
    "InstanceNumber": 0x00200013,
    "MaximumFractionalValue": 0x0062000E,
    "NumberOfFrames": 0x00280008,
    "PhotometricInterpretation": 0x00280004,
    "PixelRepresentation": 0x00280103,
    "PixelSpacing": 0x00280030,
    "PlanarConfiguration": 0x00280006,
    "RecommendedDisplayFrameRate": 0x00082144,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "Rows": 0x00280010,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "SamplesPerPixel": 0x00280002,
    "SeriesInstanceUID": 0x0020000E,
    "SeriesNumber": 0x00200011,
    "StudyInstanceUID": 0x0020000D,
    "VolumeFrameOfReferenceUID": 0x00209312,
}
UPTAKE = {
    "AttenuationCorrected": 0x00189759,
    "CorrectedImage": 0x00280051,
    "DecayCorrected": 0x00189758,
    "DecayCorrectionDateTime": 0x00189701,
    "PatientSex": 0x00100040,
    "PatientSize": 0x00101020,
    "PatientWeight": 0x00101030,
    "RadionuclideHalfLife": 0x00181075,
    "RadionuclideTotalDose": 0x00181074,
    "RadiopharmaceuticalStartDateTime": 0x00181078,
    "RadiopharmaceuticalStartTime": 0x00181072,
    "SUVType": 0x00541006,
    "SeriesDate": 0x00080021,
    "SeriesTime": 0x00080031,
    "TimezoneOffsetFromUTC": 0x00080201,
}
"""What uptake values are computed from; only `uptake.Uptake` comes of it, without dates and sex."""

TAGS = NUMBERS | WORDS | STORED | VECTORS | OTHERS | UPTAKE
KEYWORDS = {tag: keyword for keyword, tag in TAGS.items()}
"""Keyword of each of these tags."""
WANTED = frozenset(TAGS.values())
"""Tags of the elements that an Instance is made of."""

PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
"""Elements that hold pixels, with their keyword."""
CHARACTER_SET = 0x00080005
DESCRIPTION = 0x0008103E
"""SeriesDescription, which is decoded by the character set."""
EXTENDED_OFFSETS = 0x7FE00001
"""ExtendedOffsetTable."""
NESTED = frozenset({0x00209222, 0x00283000, 0x00409096, 0x00540016, 0x00540022, 0x00620002}) | {
    first + n for first in (0x00281101, 0x00281201, 0x00281221) for n in range(3)
}
"""Dimensions, modality tables, mappings, tracers, detectors, segments and palettes, which `objects` understands."""
CONTEXT = {CHARACTER_SET: b"CS", 0x00080008: b"CS", 0x00080060: b"CS", 0x00280004: b"CS", 0x00280103: b"US"}
"""What it looks at beside them, with the VR."""


def snake_case(keyword: str) -> str:
    """Return what the coordinate of a keyword is called.

    Examples
    --------
    >>> snake_case("XRayTubeCurrent")
    'x_ray_tube_current'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword).lower()
