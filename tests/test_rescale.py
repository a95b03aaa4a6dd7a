"""From stored numbers to values."""

import numpy as np
import pytest

from lazyvol.errors import PixelRangeError
from lazyvol.records import PixelFormat
from lazyvol.rescale import Scale, rescale

FLOATS = PixelFormat(2, 3, 1, "MONOCHROME2", 32, 32, 31, 0, "1.2.840.10008.1.2.1", element="FloatPixelData")


def test_stored_floating_point_numbers_are_no_integers():
    stored, out = np.full((2, 3), 0.5, np.float32), np.zeros((2, 3), np.int16)
    with pytest.raises(PixelRangeError, match=r'a\.dcm holds floating-point numbers.*dtype="float32"'):
        rescale(stored, Scale(), FLOATS, "frame 1 of a.dcm", out)


def test_stored_floating_point_numbers_are_scaled():
    stored, out = np.full((2, 3), 0.5, np.float32), np.zeros((2, 3), np.float32)
    rescale(stored, Scale(2.0, -1.0), FLOATS, "frame 1 of a.dcm", out)
    assert (out == 0).all()
