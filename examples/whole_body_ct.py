"""A whole-body CT, from a folder of DICOM files to pictures, statistics and a Zarr store.

Run it cell by cell in an editor that knows ``# %%``, or as a script:

    python whole_body_ct.py [FOLDER]

All results go to FOLDER, by default ``whole-body-ct``. Put your own series where ``dicom`` is.
"""

# %% Where the results go
import sys
from pathlib import Path

import lazyvol as lv
from lazyvol.phantom import write_body_ct

given = [argument for argument in sys.argv[1:2] if not argument.startswith("-")]  # a notebook has options here
folder = Path(given[0] if given else "whole-body-ct")

# %% Make a series: 160 DICOM files whose names say nothing about their order
dicom = folder / "dicom"
write_body_ct(dicom)

# %% What is in the folder? This reads headers only
scan = lv.scan_headers(dicom)
for series in lv.group_series(scan.instances):
    print(f"{series.modality} {series.description!r}: {series.stacks[0].shape} voxels")
print(f"{len(scan.skipped)} files are no images")

# %% Open it: an xarray.DataArray with positions in mm, still without a pixel
body = lv.open_volume(dicom)
print(body)

# %% Is anything odd about it?
for finding in body.vol.findings:
    print(finding)

# %% How large is it, and how fine?
extent, spacing = lv.field_of_view(body), body.vol.spacing
print(f"field of view {extent.z:g} x {extent.y:g} x {extent.x:g} mm (z, y, x)")
print(f"voxels of     {spacing.z:g} x {spacing.y:g} x {spacing.x:g} mm")

# %% Look at it from three sides: this reads one slice, and one row and one column of the others
cuts = lv.plot_slices(body, z=85, y=-25, x=0, window="soft-tissue")
cuts[0].axes.figure.savefig(folder / "slices.png", dpi=110)

# %% The same slice in the window for lungs
(cut,) = body.vol.plot(z=110, window="lung")
cut.axes.figure.savefig(folder / "lung.png", dpi=110)

# %% Cut out the chest by position, 340 mm from below the diaphragm up
chest = body.sel(z=slice(-60, 280))
print(f"chest: {chest.sizes['z']} slices, {chest.vol.field_of_view.z:g} mm")

# %% Air in the lungs: each block is read, counted and let go
lung = (chest > -900) & (chest < -500)
area = lung.sum(("y", "x")) * spacing.y * spacing.x / 100
area = area.rename("lung").assign_attrs(long_name="lung", units="cm2").compute()
print(f"{float(area.sum()) * spacing.z / 10:.0f} ml, most of it at z = {float(area.idxmax()):g} mm")

# %% One row for each slice, for a spreadsheet
table = area.to_series().round(1)
table.to_csv(folder / "lung.csv")

# %% Save it: chunked, compressed, and without identifiers of the patient
store = folder / "body.zarr"
lv.save_zarr(body, store, overwrite=True)

# %% Open the store. It is the same volume
again = lv.open_zarr(store)
assert bool((again == body).all())
assert bool((again.vol.affine == body.vol.affine).all())
print(f"all results are in {folder.resolve()}")
