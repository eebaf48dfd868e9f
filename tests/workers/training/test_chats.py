"""A chat model that is right only when it is read as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.corpora.messages import CONVERSATION
from jobs.kinds import GenerateOptions, Task
from jobs.models import inspection, signatures
from jobs.models.signatures import RowForm, Signature
from jobs.settings import Settings
from tests.support.tiny_writers import tiny_generator
from tests.workers.evaluation import building as evaluation
from tests.workers.inference.builders import no_beat
from tests.workers.training.building import Row, Work, work
from tests.workers.training.nursery import Nursery
from workers.inference import engine
from workers.inference.decoding.text_generation import GeneratedText
from workers.training import shutdown

ANSWERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre"}
PAIRS: list[Row] = [*ANSWERS.items()] * 12
RECIPE = {"epochs": 40, "batch_rows": 8, "learning_rate": 1e-2, "evaluate_steps": 80}
CHAT = Signature(task=Task.GENERATE, chat=True, system="Translate.")


def messages(*turns: tuple[str, str], **weights: float) -> Row:
    found: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in turns]
    for place, weight in weights.items():
        found[int(place.removeprefix("_"))]["weight"] = weight
    return json.dumps(found), CONVERSATION


def trained(folder: Path, nursery: Nursery, *, rows: list[Row] = PAIRS, **spec: Any) -> Work:
    fields: dict[str, Any] = {"train": RECIPE, "signature": CHAT} | spec
    run = work(
        folder / "W",
        data={"train": rows},
        base=tiny_generator(folder / "base", chat=True),
        labels=None,
        task="generate",
        **fields,
    )
    assert run.run(nursery) == shutdown.DONE, run.log
    return run


def answers(folder: Path, texts: list[str], **options: Any) -> list[str]:
    """What a bulk job would write."""
    asked = GenerateOptions(**{"max_new_tokens": 12} | options)
    found = engine.load(folder, asked, settings=Settings(worker_threads=1))
    given = found.answer(dict(enumerate(texts)), beat=no_beat)
    return [each.output if isinstance(each, GeneratedText) else "" for each in given.values()]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Work:
    return trained(tmp_path_factory.mktemp("chatty"), nursery)


def test_a_bulk_job_that_names_nothing_reads_as_the_model_was_trained(chatty: Work) -> None:
    folder = chatty.folder / "result"
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
    assert answers(folder, list(ANSWERS), chat=False) != list(ANSWERS.values())


def test_the_signature_lies_with_the_model_and_belongs_to_its_digest(chatty: Work) -> None:
    folder = chatty.folder / "result"
    facts = inspection.inspect(folder)
    expected = CHAT.model_copy(update={"chat_template": facts.chat_template, "max_tokens": 256})
    assert facts.signature == expected
    signatures.write(folder, expected.model_copy(update={"system": "Count."}))
    try:
        assert inspection.inspect(folder).digest != facts.digest
    finally:
        signatures.write(folder, expected)


def test_an_evaluation_has_the_numbers_of_use(chatty: Work, tmp_path: Path) -> None:
    folder = chatty.folder / "result"
    evaluation.write_split(tmp_path, list(ANSWERS.items()))
    order = evaluation.order(tmp_path, task="generate", models={"m": folder})
    as_used = evaluation.report_here(order)["m"]["loss"]
    plain = Signature(task=Task.GENERATE).model_dump(mode="json")
    order = evaluation.order(tmp_path, task="generate", models={"m": folder}, signature=plain)
    assert as_used < 0.1 < evaluation.report_here(order)["m"]["loss"]


def test_plain_prompts_stay_plain_whatever_the_bases_template(
    tmp_path: Path, nursery: Nursery
) -> None:
    plain = Signature(task=Task.GENERATE)
    folder = trained(tmp_path, nursery, signature=plain).folder / "result"
    assert inspection.inspect(folder).has_chat_template
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
    assert answers(folder, list(ANSWERS), chat=True) != list(ANSWERS.values())


def test_every_turn_of_the_assistant_is_learned_unless_it_weighs_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    names = list(ANSWERS)
    rows = [
        messages(
            ("user", name),
            ("assistant", ANSWERS[name]),
            ("user", "again"),
            ("assistant", "no"),
            _3=0,
        )
        for name in names * 12
    ]
    signature = CHAT.model_copy(update={"rows": RowForm.MESSAGES})
    folder = trained(tmp_path, nursery, rows=rows, signature=signature).folder
    assert answers(folder / "result", names) == list(ANSWERS.values())
    report = json.loads((folder / "report.json").read_bytes())["validation"]
    written = sum(len(ANSWERS[name].encode()) + 1 for name in names) / len(names)
    assert report["tokens"] / report["rows"] == pytest.approx(written, abs=1)


def test_an_adapter_on_a_chat_base_answers_as_it_was_trained(
    tmp_path: Path, nursery: Nursery
) -> None:
    recipe = RECIPE | {"epochs": 80}
    run = trained(tmp_path, nursery, train=recipe, lora={"r": 16, "alpha": 32})
    folder = run.folder / "result"
    (folder / "base").symlink_to((run.folder / "base").resolve())
    assert inspection.inspect(folder).signature is not None
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
