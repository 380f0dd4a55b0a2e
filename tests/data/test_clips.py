import sys

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import moving_digits
from mi_contrast.data.clips import import_opencv, open_clips

RNG = np.random.default_rng(1)


def write_frames(folder, count, names="{}.png", size=(24, 16), mode="RGB"):
    """Frames of noise, each with its number in its first pixel."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = RNG.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        pixels[0, 0] = number
        Image.fromarray(pixels).convert(mode).save(folder / names.format(number))


def test_folders_of_frames_come_by_name_and_frames_by_number(tmp_path):
    write_frames(tmp_path / "clips" / "b10", 12)
    write_frames(tmp_path / "clips" / "b2", 3)
    (tmp_path / "clips" / "notes").mkdir()
    clips = open_clips(str(tmp_path / "clips"), frames=11)
    assert clips.names == ("b2", "b10") and len(clips) == 2
    first, second = clips
    assert first.frames.shape == (3, 16, 24, 3) and first.objects is None and not first.labels
    assert second.frames[:, 0, 0, 0].tolist() == list(range(11))  # 10.png after 9.png
    assert next(iter(open_clips(str(tmp_path / "clips"), size=8))).frames.shape == (3, 8, 12, 3)
    (one,) = open_clips(str(tmp_path / "clips" / "b2"))
    np.testing.assert_array_equal(one.frames, first.frames)
    assert open_clips(str(tmp_path / "clips"), limit=1).names == ("b2",)


def test_masks_go_with_their_frames(tmp_path):
    write_frames(tmp_path / "clips" / "a", 4)
    for number in range(4):
        mask = np.zeros((32, 48), bool)  # at another size than the frames
        mask[: 8 * (number + 1)] = True
        (tmp_path / "masks" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / "a" / f"{number}.png")
    (clip,) = open_clips(str(tmp_path / "clips"), masks=str(tmp_path / "masks"), frames=3)
    assert clip.objects.shape == (3, 16, 24) and clip.objects.mean(axis=(1, 2)).tolist() == [0.25, 0.5, 0.75]
    (tmp_path / "masks" / "a" / "3.png").unlink()
    with pytest.raises(UserError, match="3 masks for 4 frames"):
        list(open_clips(str(tmp_path / "clips"), masks=str(tmp_path / "masks")))
    write_frames(tmp_path / "clips" / "aa", 4)
    with pytest.raises(UserError, match=r"no masks of clip aa.*did you mean 'a'"):
        open_clips(str(tmp_path / "clips"), masks=str(tmp_path / "masks"))


def test_video_files_are_read(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    shades = (40, 120, 200)
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for shade in shades:
        frame = np.full((24, 32, 3), 10, np.uint8)
        frame[..., 2] = shade  # OpenCV's third channel is red
        video.write(frame)
    video.release()
    for where in (tmp_path, tmp_path / "v.avi"):
        (clip,) = open_clips(str(where))
        assert clip.name == "v" and clip.frames.shape == (3, 24, 32, 3)
        np.testing.assert_allclose(clip.frames[..., 0].mean(axis=(1, 2)), shades, atol=6)
        assert clip.frames[..., 2].max() < 40
    (tmp_path / "v.avi").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable video"):
        list(open_clips(str(tmp_path)))


def test_moving_digits_know_their_digit_and_where_it_is():
    clips = open_clips("moving_digits", frames=6, limit=3)
    takes = moving_digits.make_clips("train", moving_digits.Options(64, 6))
    assert len(clips) == 3 and clips.classes["digit"][4] == "4"
    for clip, take in zip(clips, takes, strict=False):
        np.testing.assert_array_equal(clip.frames, take.frames)
        assert clip.labels == {"digit": take.digit, "background": take.background}
        for ink, cell in zip(clip.objects, take.positions, strict=True):
            rows, columns = np.nonzero(ink)
            assert 0.01 < ink.mean() < 0.25
            # the ink's middle is within a digit's half side of the cell that its centre is in
            assert abs(rows.mean() - (16 + (cell // 3) * 11 + 5)) < 14
            assert abs(columns.mean() - (16 + (cell % 3) * 11 + 5)) < 14
    assert next(iter(open_clips("moving_digits", frames=2, size=32, limit=1))).frames.shape == (2, 32, 32, 3)


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"mi-contrast\[video\]"):
        import_opencv()


def test_mistakes_are_said(tmp_path):
    write_frames(tmp_path / "clips" / "one", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no clip")
    for call, said in (
        (lambda: open_clips(str(tmp_path / "clpis")), "did you mean 'clips'"),
        (lambda: open_clips("moving_digit"), "did you mean 'moving_digits'"),
        (lambda: open_clips(str(tmp_path / "empty")), "holds no clips"),
        (lambda: open_clips(str(tmp_path / "text.txt")), "no video file"),
        (lambda: list(open_clips(str(tmp_path / "clips"))), "has 1 frames"),
        (lambda: open_clips("moving_digits", masks=str(tmp_path)), "leave out --masks"),
        (lambda: open_clips("moving_digits", size=48), "size 48"),
    ):
        with pytest.raises(UserError, match=said):
            call()
