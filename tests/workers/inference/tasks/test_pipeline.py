"""Pipelines against the transformers library's own on the same model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from transformers import pipeline

from jobs.corpora import sources
from jobs.errors import ModelFailure, StorageAway
from jobs.kinds import PipelineOptions, PipelineTask
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support import tiny_pipelines
from tests.support.result_schemas import PIPELINE_SCHEMA
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import MASK, a_sound, an_image
from tests.workers.inference.builders import assert_near, no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.row_isolation import DeviceFailed
from workers.inference.tasks import media
from workers.inference.tasks.pipeline import PipelineEngine, PipelineOutput

LONG = "the team won " * 100


def loaded(folder: Path, *, allowed: Path | None = None, **options: Any) -> PipelineEngine:
    inputs = [] if allowed is None else [allowed.as_uri()]
    settings = Settings(worker_threads=1, allowed_inputs=inputs)
    found = engine.load(folder, PipelineOptions(**options), settings=settings)
    assert isinstance(found, PipelineEngine)
    return found


def answers(
    folder: Path, texts: Mapping[int, str], *, allowed: Path | None = None, **options: Any
) -> dict[int, PipelineOutput | RowError]:
    return loaded(folder, allowed=allowed, **options).answer(texts, beat=no_beat)


def outputs(found: Mapping[int, PipelineOutput | RowError]) -> dict[int, Any]:
    """The parsed output of each row, none of which may be an error."""
    assert not [each for each in found.values() if isinstance(each, RowError)]
    return {
        row: json.loads(each.output)
        for row, each in found.items()
        if isinstance(each, PipelineOutput)
    }


def own(folder: Path, task: str, value: Any, **parameters: Any) -> Any:
    """The library's output for one value, as JSON."""
    make: Any = pipeline
    pipe = make(task, model=str(folder))
    return json.loads(json.dumps(pipe(value, **parameters), default=lambda each: each.tolist()))


def error(found: Mapping[int, PipelineOutput | RowError], row: int) -> RowError:
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
    assert isinstance(found, PipelineOutput)
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
    assert isinstance(first, PipelineOutput)
    assert isinstance(second, PipelineOutput)
    assert (first.tokens, first.truncated) == (128, True)
    assert (second.tokens, second.truncated) == (4, False)


def test_a_long_text_with_a_stride_is_read_to_its_end(entities: Path) -> None:
    parameters = {"aggregation_strategy": "simple", "stride": 16}
    found = answers(entities, {0: LONG}, parameters=parameters)
    assert_near(outputs(found)[0], own(entities, "ner", LONG, **parameters))
    first = found[0]
    assert isinstance(first, PipelineOutput)
    assert first.truncated is False
    assert first.tokens is not None
    assert first.tokens > 128


def test_a_text_without_tokens_is_an_error_row(entities: Path) -> None:
    found = answers(entities, {0: "\u200b\u0007", 1: "the team"})
    assert error(found, 0).code is RowCode.NO_TOKENS
    assert isinstance(found[1], PipelineOutput)


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
    assert isinstance(found[0], PipelineOutput)
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
    parsed = outputs(found)
    assert any(parsed.values())
    for row, image in enumerate(images):
        assert_near(parsed[row], own(folder, task.value, str(image), **parameters))
    assert {each.tokens for each in found.values() if isinstance(each, PipelineOutput)} == {None}


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
    assert isinstance(found[0], PipelineOutput)
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
    assert sum(isinstance(each, PipelineOutput) for each in found.values()) == 7
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
