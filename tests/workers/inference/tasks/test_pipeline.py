"""Pipelines, against the transformers library's own on the same model."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import pipeline

from jobs.corpora import sources
from jobs.errors import ModelFailure, StorageAway
from jobs.kinds import PipelineOptions, PipelineTask
from jobs.results.schemas import PIPELINE_SCHEMA, RowCode
from jobs.settings import Settings
from tests.support import tiny_pipelines
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import MASK, a_sound, an_image
from tests.workers.inference.building import assert_near, no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.row_isolation import DeviceFailed
from workers.inference.tasks import media
from workers.inference.tasks.pipeline import Pipe, Piped

LONG = "the team won " * 100


def loaded(folder: Path, *, allowed: Path | None = None, **options: Any) -> Pipe:
    inputs = [] if allowed is None else [allowed.as_uri()]
    settings = Settings(worker_threads=1, allowed_inputs=inputs)
    found = engine.load(folder, PipelineOptions(**options), settings=settings)
    assert isinstance(found, Pipe)
    return found


def answers(
    folder: Path, texts: Mapping[int, str], *, allowed: Path | None = None, **options: Any
) -> dict[int, Piped | RowError]:
    return loaded(folder, allowed=allowed, **options).answer(texts, beat=no_beat)


def outputs(found: Mapping[int, Piped | RowError]) -> dict[int, Any]:
    """What was said of each row, none of which may be an error."""
    assert not [each for each in found.values() if isinstance(each, RowError)]
    return {row: json.loads(each.output) for row, each in found.items() if isinstance(each, Piped)}


def own(folder: Path, task: str, value: Any, **parameters: Any) -> Any:
    """What the library says of one value, as JSON says it."""
    make: Any = pipeline
    pipe = make(task, model=str(folder))
    return json.loads(json.dumps(pipe(value, **parameters), default=lambda each: each.tolist()))


def error(found: Mapping[int, Piped | RowError], row: int) -> RowError:
    each = found[row]
    assert isinstance(each, RowError), each
    return each


@pytest.fixture(scope="module")
def entities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.entity_finder(tmp_path_factory.mktemp("models") / "entities")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.mask_filler(tmp_path_factory.mktemp("models") / "masks")


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_entities_are_those_of_the_library(entities: Path, strategy: str) -> None:
    texts = dict(enumerate([*some_texts(12), "科学家测量了遥远星系的光。"]))
    found = outputs(answers(entities, texts, parameters={"aggregation_strategy": strategy}))
    assert any(found.values())
    for row, text in texts.items():
        assert_near(found[row], own(entities, "ner", text, aggregation_strategy=strategy))


@pytest.mark.parametrize("batch_rows", [1, 3, 64])
def test_no_answer_depends_on_how_the_rows_are_cut(entities: Path, batch_rows: int) -> None:
    texts = dict(enumerate(some_texts(20)))
    alone = {row: outputs(answers(entities, {row: text}))[row] for row, text in texts.items()}
    assert_near(outputs(answers(entities, texts, batch_rows=batch_rows)), alone)


def test_the_columns_are_those_of_the_schema(entities: Path) -> None:
    found = answers(entities, {0: "the team"})[0]
    assert isinstance(found, Piped)
    names = set(PIPELINE_SCHEMA.names)
    assert set(found.columns()) == names - {"row", "line", "id", "text"} - {
        name for name in names if name.startswith("error")
    }


def test_equal_rows_are_done_once(entities: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = loaded(entities)
    calls: list[str] = []
    read = pipe._read

    def counted(text: str) -> Any:
        calls.append(text)
        return read(text)

    monkeypatch.setattr(pipe, "_read", counted)
    found = pipe.answer({0: "a", 1: "b", 2: "a"}, beat=no_beat)
    assert sorted(calls) == ["a", "b"]
    assert found[0] == found[2]


def test_a_long_text_is_cut_and_says_so(entities: Path) -> None:
    found = answers(entities, {0: LONG, 1: "the team"})
    first, second = found[0], found[1]
    assert isinstance(first, Piped)
    assert isinstance(second, Piped)
    assert (first.tokens, first.truncated) == (128, True)
    assert (second.tokens, second.truncated) == (4, False)


def test_a_long_text_with_a_stride_is_read_to_its_end(entities: Path) -> None:
    parameters = {"aggregation_strategy": "simple", "stride": 16}
    found = answers(entities, {0: LONG}, parameters=parameters)
    assert_near(outputs(found)[0], own(entities, "ner", LONG, **parameters))
    first = found[0]
    assert isinstance(first, Piped)
    assert first.truncated is False
    assert first.tokens is not None
    assert first.tokens > 128


def test_a_text_without_tokens_is_an_error_row(entities: Path) -> None:
    found = answers(entities, {0: "\u200b\u0007", 1: "the team"})
    assert error(found, 0).code is RowCode.NO_TOKENS
    assert isinstance(found[1], Piped)


@pytest.mark.parametrize("batch_rows", [1, 8])
def test_masks_are_filled_and_a_row_without_one_harms_only_itself(
    masks: Path, batch_rows: int
) -> None:
    texts = {0: f"the {MASK} won", 1: "the team won", 2: f"{MASK} galaxy", 3: f"{MASK} {MASK}"}
    found = answers(masks, texts, batch_rows=batch_rows, parameters={"top_k": 2})
    wrong = error(found, 1)
    assert wrong.code is RowCode.PIPELINE_FAILED
    assert "mask" in wrong.message.lower()
    good = outputs({row: each for row, each in found.items() if row != 1})
    for row in good:
        assert_near(good[row], own(masks, "fill-mask", texts[row], top_k=2))


def test_a_long_text_is_cut_before_its_mask_is_filled(masks: Path) -> None:
    found = answers(masks, {0: f"{MASK} {LONG}", 1: f"{LONG} {MASK}"})
    assert isinstance(found[0], Piped)
    assert found[0].truncated is True
    assert error(found, 1).code is RowCode.PIPELINE_FAILED  # its mask was cut off


Maker = Callable[[Path], Path]

OF_IMAGES: dict[PipelineTask, tuple[Maker, dict[str, Any]]] = {
    PipelineTask.IMAGE_CLASSIFICATION: (tiny_pipelines.image_classifier, {"top_k": 2}),
    PipelineTask.OBJECT_DETECTION: (tiny_pipelines.object_finder, {"threshold": 0.1}),
    PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION: (
        tiny_pipelines.image_matcher,
        {"candidate_labels": ["team", "galaxy"]},
    ),
}


@pytest.mark.parametrize("task", list(OF_IMAGES))
@pytest.mark.parametrize("batch_rows", [1, 4])
def test_images_are_read_from_their_uris(
    tmp_path: Path, task: PipelineTask, batch_rows: int
) -> None:
    make, parameters = OF_IMAGES[task]
    folder = make(tmp_path / "model")
    images = [an_image(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    texts = {row: image.as_uri() for row, image in enumerate(images)}
    found = answers(folder, texts, allowed=tmp_path, parameters=parameters, batch_rows=batch_rows)
    said = outputs(found)
    assert any(said.values())
    for row, image in enumerate(images):
        assert_near(said[row], own(folder, task.value, str(image), **parameters))
    assert {each.tokens for each in found.values() if isinstance(each, Piped)} == {None}


OF_SOUNDS: dict[PipelineTask, Maker] = {
    PipelineTask.AUDIO_CLASSIFICATION: tiny_pipelines.sound_classifier,
    PipelineTask.SPEECH_RECOGNITION: tiny_pipelines.transcriber,
}


@pytest.mark.parametrize("task", list(OF_SOUNDS))
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_sounds_are_read_from_their_uris(tmp_path: Path, task: PipelineTask, ending: str) -> None:
    folder = OF_SOUNDS[task](tmp_path / "model")
    sound = a_sound(tmp_path / f"1.{ending}", seed=1)
    found = outputs(answers(folder, {0: sound.as_uri()}, allowed=tmp_path))
    samples, rate = soundfile.read(sound, dtype="float32")
    expected = own(folder, task.value, {"raw": samples, "sampling_rate": rate})
    assert_near(found[0], expected)


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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.image_classifier(tmp_path_factory.mktemp("models") / "pictures")


def test_a_file_that_cannot_be_read_harms_only_its_row(pictures: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    good = an_image(allowed / "good.png", seed=0)
    (allowed / "text.png").write_text("no image")
    (allowed / "cut.png").write_bytes(good.read_bytes()[:200])
    outside = an_image(tmp_path / "outside.png", seed=1)
    (allowed / "link.png").symlink_to(outside)
    texts = {
        0: good.as_uri(),
        1: (allowed / "missing.png").as_uri(),
        2: (allowed / "text.png").as_uri(),
        3: (allowed / "cut.png").as_uri(),
        4: outside.as_uri(),
        5: (allowed / "link.png").as_uri(),
        6: "good.png",
        7: "https://example.org/a.png",
    }
    found = answers(pictures, texts, allowed=allowed, batch_rows=4)
    assert isinstance(found[0], Piped)
    codes = {row: error(found, row).code for row in texts if row}
    assert codes == {
        1: RowCode.FILE_UNREADABLE,
        2: RowCode.FILE_UNREADABLE,
        3: RowCode.FILE_UNREADABLE,
        4: RowCode.FILE_REFUSED,
        5: RowCode.FILE_REFUSED,
        6: RowCode.FILE_REFUSED,
        7: RowCode.FILE_REFUSED,
    }


def test_a_file_that_may_not_be_read_harms_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests may be root, who may read everything."""
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


def test_a_file_that_is_too_large_is_not_read(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = an_image(tmp_path / "large.png", seed=0)
    monkeypatch.setattr(media, "MAX_BYTES", image.stat().st_size - 1)
    found = answers(pictures, {0: image.as_uri()}, allowed=tmp_path)
    assert "at most" in error(found, 0).message


def test_storage_that_does_not_answer_is_not_the_rows_fault(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("the disk does not answer")

    monkeypatch.setattr(sources, "from_uri", away)
    with pytest.raises(StorageAway, match="does not answer"):
        answers(pictures, {0: "file:///a.png"}, allowed=tmp_path)


def test_a_device_that_fails_is_not_the_rows_fault(
    entities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = loaded(entities, batch_rows=4)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(pipe, "_pipe", broken)
    with pytest.raises(DeviceFailed, match="illegal"):
        pipe.answer({0: "a", 1: "b"}, beat=no_beat)


def test_rows_that_do_not_fit_into_memory_together_are_done_apart(
    entities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = loaded(entities, batch_rows=8)
    whole, sizes = pipe._pipe, []

    def small(values: Any, *, batch_size: int, **parameters: Any) -> Any:
        sizes.append(batch_size)
        texts = list(values)
        if batch_size > 2 or "galaxy" in texts:
            raise torch.OutOfMemoryError("out of memory")
        return whole((text for text in texts), batch_size=batch_size, **parameters)

    monkeypatch.setattr(pipe, "_pipe", small)
    texts = dict(enumerate(["galaxy", *some_texts(7)]))
    found = pipe.answer(texts, beat=no_beat)
    assert error(found, 0).code is RowCode.OUT_OF_MEMORY
    assert sum(isinstance(each, Piped) for each in found.values()) == 7
    assert max(sizes) == 8


def test_numbers_that_are_not_finite_are_no_json(
    entities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = loaded(entities)
    monkeypatch.setattr(pipe, "_pipe", lambda *_, **__: [[{"score": float("nan")}]])
    assert error(pipe.answer({0: "a"}, beat=no_beat), 0).code is RowCode.NOT_FINITE


@pytest.mark.parametrize(
    "parameters",
    [
        {"agregation_strategy": "simple"},
        {"aggregation_strategy": "sum"},
        {"stride": 100_000},
        {"offset_mapping": [[0, 1]]},
    ],
)
def test_parameters_that_the_pipeline_does_not_take_fail_the_job(
    entities: Path, parameters: dict[str, Any]
) -> None:
    with pytest.raises(ModelFailure) as caught:
        loaded(entities, parameters=parameters)
    assert caught.value.code == "pipeline_refused"


def test_the_task_is_what_the_model_was_made_for(entities: Path, tmp_path: Path) -> None:
    assert outputs(answers(entities, {0: "x"})) == outputs(
        answers(entities, {0: "x"}, task="token-classification")
    )
    sound = a_sound(tmp_path / "1.wav", seed=1)
    folder = tiny_pipelines.transcriber(tmp_path / "model")
    assert "text" in outputs(answers(folder, {0: sound.as_uri()}, allowed=tmp_path))[0]


@pytest.mark.parametrize(
    ("make", "task", "code"),
    [
        (tiny_classifier, None, "model_no_pipeline"),
        (tiny_classifier, "fill-mask", "model_no_pipeline"),
        (tiny_encoder, "image-classification", "model_no_pipeline"),
        (tiny_pipelines.image_classifier, "token-classification", "model_no_pipeline"),
    ],
)
def test_a_model_of_another_task_is_refused(
    tmp_path: Path, make: Maker, task: str | None, code: str
) -> None:
    folder = make(tmp_path / "model")
    with pytest.raises(ModelFailure) as caught:
        loaded(folder, task=task)
    assert caught.value.code == code


def test_a_model_without_its_preprocessor_is_refused(tmp_path: Path) -> None:
    folder = tiny_pipelines.transcriber(tmp_path / "model")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelFailure) as caught:
        loaded(folder, task="automatic-speech-recognition")
    assert caught.value.code == "model_no_preprocessor"
