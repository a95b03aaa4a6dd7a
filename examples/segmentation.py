"""A segmentation on its CT: names, volumes and mean CT numbers of what it marks.

Run it cell by cell in an editor that knows ``# %%``, or as a script:

    python segmentation.py [FOLDER]

All results go to FOLDER, by default ``segmentation``. Put your own files where ``dicom`` and ``lungs.dcm`` are.
"""

# %% Where the results go
import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import lazyvol as lv
from lazyvol.phantom import write_body_ct

given = [argument for argument in sys.argv[1:2] if not argument.startswith("-")]  # a notebook has options here
folder = Path(given[0] if given else "segmentation")
dicom, path = folder / "dicom", folder / "lungs.dcm"


# %% Make a CT, and a segmentation of one side of its lungs and the other: one bit a voxel, empty planes left out
def of(**elements):
    """Return a dataset of these elements."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write_lungs(ct):
    """Write what is -900 to -500 HU in the chest as two segments, apart at x = 0."""
    chest = (abs(ct.x) < 132) & (abs(ct.y) < 92) & (ct.z > -60) & (ct.z < 280)  # without skin and table
    lung = (chest & (ct > -900) & (ct < -500)).transpose(*ct.dims).compute()
    groups, frames = [], []
    for number, side in ((1, lung.x < 0), (2, lung.x > 0)):
        for k, frame in enumerate((lung & side).values):
            if frame.any():
                where = [float(v) for v in ct.vol.index_to_position((k, 0, 0))]
                position, segment = of(ImagePositionPatient=where), of(ReferencedSegmentNumber=number)
                groups.append(of(PlanePositionSequence=[position], SegmentIdentificationSequence=[segment]))
                frames.append(frame)
    spacing = ct.vol.spacing
    measures = of(PixelSpacing=[spacing.y, spacing.x], SpacingBetweenSlices=spacing.z)
    along = of(ImageOrientationPatient=[*ct.vol.directions[2], *ct.vol.directions[1]])
    file = of(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
        SOPInstanceUID=generate_uid(),
        StudyInstanceUID=generate_uid(),
        SeriesInstanceUID=generate_uid(),
        FrameOfReferenceUID=ct.geometry.attrs["frame_of_reference"],
        Modality="SEG",
        SegmentationType="BINARY",
        SegmentSequence=[of(SegmentNumber=n, SegmentLabel=f"{side} lung") for n, side in ((1, "right"), (2, "left"))],
        NumberOfFrames=len(frames),
        Rows=ct.sizes["y"],
        Columns=ct.sizes["x"],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
        SharedFunctionalGroupsSequence=[of(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[along])],
        PerFrameFunctionalGroupsSequence=groups,
        PixelData=np.packbits(frames, bitorder="little").tobytes(),
    )
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.save_as(path, enforce_file_format=True)


write_body_ct(dicom)
write_lungs(lv.open_volume(dicom))

# %% Open both. The segmentation comes on the grid of the CT, still without a pixel
ct = lv.open_volume(dicom)
lungs = lv.open_volume(path, like=ct)
print(lungs)

# %% How large is each segment, and what is its mean CT number? Block by block, never all at once
millilitres = float(np.prod(ct.vol.spacing)) / 1000
for number, label in zip(lungs.segment.values, lungs.segment_label.values, strict=True):
    inside = lungs.sel(segment=number) > 0
    print(f"{label}: {float(inside.sum()) * millilitres:.0f} ml, {float(ct.where(inside).mean()):.0f} HU")

# %% Look at one plane, with the rest of the body dark
(cut,) = lv.plot_slices(ct.where(lungs.max("segment") > 0, -1024), z=110, window="lung")
cut.axes.figure.savefig(folder / "lungs.png", dpi=110)
