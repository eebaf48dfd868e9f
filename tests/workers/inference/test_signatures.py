"""A job without options does what the signature of the model's folder says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.kinds import ClassifyOptions, GenerateOptions, Options, Task, Text2TextOptions
from jobs.models import signatures
from jobs.models.signatures import Signature
from jobs.settings import Settings
from tests.support.tiny_models import SENTENCES, tiny_classifier
from tests.support.tiny_writers import tiny_generator, tiny_translator
from tests.workers.inference.builders import no_beat
from workers.inference import engine

ONE_THREAD = Settings(worker_threads=1)
SHORT = {"max_new_tokens": 8}

CASES: dict[str, tuple[Callable[[Path], Path], Signature, Options, Options]] = {
    "window": (
        tiny_classifier,
        Signature(task=Task.CLASSIFY, max_tokens=8),
        ClassifyOptions(),
        ClassifyOptions(max_tokens=8, multi_label=False),
    ),
    "several labels": (
        tiny_classifier,
        Signature(task=Task.CLASSIFY, multi_label=True),
        ClassifyOptions(),
        ClassifyOptions(multi_label=True),
    ),
    "no template": (
        lambda folder: tiny_generator(folder, chat=True),
        Signature(task=Task.GENERATE),
        GenerateOptions(**SHORT),
        GenerateOptions(chat=False, **SHORT),
    ),
    "system": (
        lambda folder: tiny_generator(folder, chat=True),
        Signature(task=Task.GENERATE, chat=True, system="Be brief."),
        GenerateOptions(**SHORT),
        GenerateOptions(chat=True, system="Be brief.", **SHORT),
    ),
    "prompt": (
        tiny_translator,
        Signature(task=Task.TEXT2TEXT, prompt="shorten: ", max_tokens=16),
        Text2TextOptions(**SHORT),
        Text2TextOptions(prompt="shorten: ", max_tokens=16, **SHORT),
    ),
}


def answers(folder: Path, options: Options) -> list[dict[str, Any]]:
    model = engine.load(folder, options, settings=ONE_THREAD)
    answers = model.answer(dict(enumerate(SENTENCES[:4])), beat=no_beat)
    return [answer.columns() for answer in answers.values()]  # type: ignore[union-attr]


@pytest.mark.parametrize("case", CASES)
def test_a_job_without_options_does_what_a_job_with_all_of_them_does(
    case: str, tmp_path: Path
) -> None:
    build, signature, nothing, everything = CASES[case]
    plain = build(tmp_path / "plain")
    signed = shutil.copytree(plain, tmp_path / "signed")
    signatures.write(signed, signature)
    assert answers(signed, nothing) == answers(plain, everything)
    assert answers(signed, nothing) != answers(plain, nothing)
