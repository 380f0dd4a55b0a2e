"""Images that are read for a run's features."""

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.near import read_images


def test_broken_files_of_a_folder_have_no_row_and_are_named(tmp_path, capsys):
    for number, colour in (("b", 200), ("a", 100), ("c", 0)):
        Image.new("RGB", (20, 20), (colour, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    images = read_images(tmp_path, 8)
    assert images.shape == (2, 8, 8, 3) and np.array_equal(images[:, 0, 0, 0], [100, 0])
    said = capsys.readouterr().out
    assert "1 of 3 images can't be read and have no row" in said and "b.png" in said and str(tmp_path) not in said
    with pytest.raises(UserError, match=r"b\.png"):
        read_images(tmp_path / "b.png", 8)
    for name in "ac":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(UserError, match="no images that can be read"):
        read_images(tmp_path, 8)
