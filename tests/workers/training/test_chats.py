"""A chat model answers correctly only if it is used as it was trained (promise P13)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.corpora.message_lists import CONVERSATION
from jobs.kinds import GenerateOptions, Task
from jobs.models import inspection, signatures
from jobs.models.signatures import RowForm, Signature
from jobs.settings import Settings
from tests.support.tiny_writers import tiny_generator
from tests.workers.evaluation import builders as evaluation
from tests.workers.inference.builders import no_beat
from tests.workers.training.fork_server import ForkServer
from tests.workers.training.work_folder import Row, WorkFolder, work_folder
from workers.inference import engine
from workers.inference.decoding.text_generation import GeneratedText
from workers.training import shutdown

ANSWERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre"}
PAIRS: list[Row] = [*ANSWERS.items()] * 12
RECIPE = {"epochs": 40, "batch_rows": 8, "learning_rate": 1e-2, "evaluate_steps": 80}
CHAT = Signature(task=Task.GENERATE, chat=True, system="Translate.")


def messages(*turns: tuple[str, str], **weights: float) -> Row:
    turns_of_row: list[dict[str, Any]] = [
        {"role": role, "content": content} for role, content in turns
    ]
    for place, weight in weights.items():
        turns_of_row[int(place.removeprefix("_"))]["weight"] = weight
    return json.dumps(turns_of_row), CONVERSATION


def trained(
    folder: Path, fork_server: ForkServer, *, rows: list[Row] = PAIRS, **spec: Any
) -> WorkFolder:
    fields: dict[str, Any] = {"train": RECIPE, "signature": CHAT} | spec
    run = work_folder(
        folder / "W",
        data={"train": rows},
        base=tiny_generator(folder / "base", chat=True),
        labels=None,
        task="generate",
        **fields,
    )
    assert run.run(fork_server) == shutdown.DONE, run.log
    return run


def answers(folder: Path, texts: list[str], **options: Any) -> list[str]:
    """The outputs of a bulk job."""
    generate = GenerateOptions(**{"max_new_tokens": 12} | options)
    loaded = engine.load(folder, generate, settings=Settings(worker_threads=1))
    results = loaded.answer(dict(enumerate(texts)), beat=no_beat)
    return [each.output if isinstance(each, GeneratedText) else "" for each in results.values()]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> WorkFolder:
    return trained(tmp_path_factory.mktemp("chatty"), fork_server)


def test_a_bulk_job_without_options_uses_the_model_as_it_was_trained(chatty: WorkFolder) -> None:
    folder = chatty.folder / "result"
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
    assert answers(folder, list(ANSWERS), chat=False) != list(ANSWERS.values())


def test_the_signature_is_part_of_the_model_folder_and_its_digest(chatty: WorkFolder) -> None:
    folder = chatty.folder / "result"
    facts = inspection.inspect(folder)
    expected = CHAT.model_copy(update={"chat_template": facts.chat_template, "max_tokens": 256})
    assert facts.signature == expected
    signatures.write(folder, expected.model_copy(update={"system": "Count."}))
    try:
        assert inspection.inspect(folder).digest != facts.digest
    finally:
        signatures.write(folder, expected)


def test_an_evaluation_uses_the_model_as_bulk_jobs_do(chatty: WorkFolder, tmp_path: Path) -> None:
    folder = chatty.folder / "result"
    evaluation.write_split(tmp_path, list(ANSWERS.items()))
    config = evaluation.config_file(tmp_path, task="generate", models={"m": folder})
    as_used = evaluation.report_here(config)["m"]["loss"]
    plain = Signature(task=Task.GENERATE).model_dump(mode="json")
    config = evaluation.config_file(
        tmp_path, task="generate", models={"m": folder}, signature=plain
    )
    assert as_used < 0.1 < evaluation.report_here(config)["m"]["loss"]


def test_plain_prompts_stay_plain_even_if_the_base_has_a_template(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    plain = Signature(task=Task.GENERATE)
    folder = trained(tmp_path, fork_server, signature=plain).folder / "result"
    assert inspection.inspect(folder).has_chat_template
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
    assert answers(folder, list(ANSWERS), chat=True) != list(ANSWERS.values())


def test_every_turn_of_the_assistant_is_learned_unless_its_weight_is_0(
    tmp_path: Path, fork_server: ForkServer
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
    folder = trained(tmp_path, fork_server, rows=rows, signature=signature).folder
    assert answers(folder / "result", names) == list(ANSWERS.values())
    report = json.loads((folder / "report.json").read_bytes())["validation"]
    targets = sum(len(ANSWERS[name].encode()) + 1 for name in names) / len(names)
    assert report["tokens"] / report["rows"] == pytest.approx(targets, abs=1)


def test_an_adapter_on_a_chat_base_answers_as_it_was_trained(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    recipe = RECIPE | {"epochs": 80}
    run = trained(tmp_path, fork_server, train=recipe, lora={"r": 16, "alpha": 32})
    folder = run.folder / "result"
    (folder / "base").symlink_to((run.folder / "base").resolve())
    assert inspection.inspect(folder).signature is not None
    assert answers(folder, list(ANSWERS)) == list(ANSWERS.values())
