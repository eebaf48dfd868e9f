"""Images and sounds: decoded within bounds, and damaged files are errors of their rows."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from jobs.row_codes import RowCode
from tests.support.tiny_pipelines import an_image
from workers.inference.batching.forward import RowError
from workers.inference.tasks import media


def test_a_sound_of_another_rate_with_two_channels_becomes_one_of_the_models(
    tmp_path: Path,
) -> None:
    """A tone stays the tone it is."""
    rate, tone = 44_100, 440.0
    there = np.sin(2 * np.pi * tone * np.arange(rate) / rate)
    soundfile.write(tmp_path / "tone.wav", np.stack([there, there], axis=1), rate)
    found = media.sound((tmp_path / "tone.wav").read_bytes(), rate=8_000)
    assert not isinstance(found, RowError)
    assert found.dtype == np.float32
    assert found.shape == (8_000,)
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == tone


def test_a_sound_that_is_too_long_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_SAMPLES", 8_000)
    ends = {}
    for frames in (4_000, 4_001):
        soundfile.write(tmp_path / "a.flac", np.zeros((frames, 2)), 8_000)
        ends[frames] = media.sound((tmp_path / "a.flac").read_bytes(), rate=8_000)
    assert not isinstance(ends[4_000], RowError)
    assert isinstance(ends[4_001], RowError)
    assert "at most 8,000 samples" in ends[4_001].message


def test_a_file_that_is_no_sound_is_an_error() -> None:
    for data in (b"", b"no sound", b"RIFF\0\0\0\0WAVE"):
        found = media.sound(data, rate=8_000)
        assert isinstance(found, RowError)
        assert found.code is RowCode.FILE_UNREADABLE


def test_a_file_that_may_not_be_read_harms_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, because the tests may run as root, which may read everything."""
    image = an_image(tmp_path / "secret.png", seed=0)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    found = media.read(image.as_uri(), allowed=[tmp_path.as_uri()])
    assert isinstance(found, RowError)
    assert found.code is RowCode.FILE_UNREADABLE


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF"])
def test_a_damaged_image_is_read_or_is_an_error(kind: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    found = [media.image(data) for data in damaged(file.getvalue())]
    errors = [each for each in found if isinstance(each, RowError)]
    assert errors
    assert {each.code for each in errors} == {RowCode.FILE_UNREADABLE}


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_damaged_sound_is_read_or_is_an_error(kind: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(8_000) / 5) / 2, 8_000, format=kind)
    found = [media.sound(data, rate=16_000) for data in damaged(file.getvalue())]
    errors = [each for each in found if isinstance(each, RowError)]
    assert errors
    assert {each.code for each in errors} == {RowCode.FILE_UNREADABLE}


def damaged(data: bytes) -> Iterator[bytes]:
    """Cut short, and with some of its first bytes changed."""
    chance = random.Random(0)
    for _ in range(60):
        yield data[: chance.randrange(len(data))]
        changed = bytearray(data)
        for _ in range(chance.randint(1, 16)):
            changed[chance.randrange(min(len(data), 120))] = chance.randrange(256)
        yield bytes(changed)


@pytest.mark.parametrize(("rate", "fits"), [(999, False), (1_000, True), (768_001, False)])
def test_a_sound_claims_a_rate_within_bounds(rate: int, *, fits: bool) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100), rate, format="WAV")
    found = media.sound(file.getvalue(), rate=16_000)
    assert fits is not isinstance(found, RowError)
    if isinstance(found, RowError):
        assert f"not {rate:,}" in found.message


def test_a_sound_that_grows_too_long_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_SAMPLES", 8_000)
    file = io.BytesIO()
    soundfile.write(file, np.zeros(4_000), 1_000, format="WAV")
    assert isinstance(media.sound(file.getvalue(), rate=2_001), RowError)
    assert not isinstance(media.sound(file.getvalue(), rate=2_000), RowError)
