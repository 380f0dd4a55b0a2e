"""Headers of .npz files that claim more than the file holds."""

import io
import zipfile

import numpy as np
import pytest

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import UserError
from mi_contrast.samples import read_samples


def write_claim(path, rows):
    """An .npz whose x has a header of `rows` float64 and the data of four."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (rows,)})
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, header.getvalue() + np.arange(4.0).tobytes())


def test_a_header_that_claims_4_tib_is_refused(tmp_path):
    write_claim(tmp_path / "big.npz", 2**39)
    with pytest.raises(ValueError, match=r"x\.npy claims shape"):
        check_npz_sizes(tmp_path / "big.npz")
    with pytest.raises(UserError, match=r"big\.npz"):
        read_samples(tmp_path / "big.npz", ("x", "y"))


def test_a_true_header_passes(tmp_path):
    write_claim(tmp_path / "small.npz", 4)
    check_npz_sizes(tmp_path / "small.npz")
    assert read_samples(tmp_path / "small.npz", ("x", "y"))[0].shape == (4, 1)
