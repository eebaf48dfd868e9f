"""Media files that rows name: images and sounds, from the same places as corpora (promise P10).

A file that is missing, or cannot be decoded, is its row's error; storage that does not answer is a
transient fault.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.corpora import sources
from jobs.corpora.batches import clipped
from jobs.errors import CorpusFailure, CorpusRefused, StorageAway
from jobs.row_codes import RowCode
from workers.inference.batching.forward import RowError

MAX_BYTES = 256 * 2**20
MAX_SAMPLES = 2**27
"""Of a sound, in all channels together: half a gibibyte, which a small file of silence can hide."""

RATES = range(1_000, 768_001)
"""Samples a second that a file may claim; resampling others would take any time and memory."""


def read(uri: str, *, allowed: Sequence[str], private: Sequence[str] = ()) -> bytes | RowError:
    """The file's bytes, or why it cannot be read. Raises ``StorageAway``."""
    try:
        with sources.from_uri(uri.strip(), allowed=allowed, private=private).open() as file:
            data = file.read(MAX_BYTES + 1)
    except CorpusRefused as refused:
        return RowError(RowCode.FILE_REFUSED, clipped(refused.message))
    except (CorpusFailure, FileNotFoundError, PermissionError) as failure:
        return _unreadable(str(failure))
    except OSError as error:
        raise StorageAway(f"{uri} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        return _unreadable(f"the file must be at most {MAX_BYTES:,} bytes")
    return data


def image(data: bytes) -> Any | RowError:
    """A Pillow image in RGB, rotated by its EXIF orientation."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - of the extra `media`

    try:
        with Image.open(io.BytesIO(data)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except MemoryError:  # of the device, not of the file: Pillow bounds its pixels
        raise
    except Exception as error:  # noqa: BLE001 - each format's decoder raises its own
        return _unreadable(f"the file is no image that can be read: {error}")


def sound(data: bytes, *, rate: int) -> npt.NDArray[np.float32] | RowError:
    """One channel (samples,) between -1 and 1, at ``rate`` samples a second."""
    import soundfile  # noqa: PLC0415 - of the extra `media`
    from scipy import signal  # noqa: PLC0415 - the same

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            own, most = file.samplerate, MAX_SAMPLES // file.channels
            if own not in RATES:
                return _unreadable(
                    f"the sound must have {RATES[0]:,} to {RATES[-1]:,} samples a second, "
                    f"not {own:,}"
                )
            samples = file.read(most + 1, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        return _unreadable(f"the file is no sound that can be read: {error}")
    if len(samples) > most or len(samples) * rate > MAX_SAMPLES * own:
        return _unreadable(
            f"the sound must have at most {MAX_SAMPLES:,} samples, and at the model's rate as well"
        )
    mono: npt.NDArray[np.float32] = samples.mean(axis=1)
    if not len(mono):
        return _unreadable("the sound has no samples")
    if own != rate:
        common = math.gcd(own, rate)
        mono = signal.resample_poly(mono, rate // common, own // common).astype(np.float32)
    return mono


def _unreadable(why: str) -> RowError:
    return RowError(RowCode.FILE_UNREADABLE, clipped(why))
