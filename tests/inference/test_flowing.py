"""Rows that leave and join a causal model's batch while it is written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.rows import RowCode
from jobs.settings import Settings
from jobs.specs import GenerateOptions
from tests.inference.building import no_beat, some_texts
from tests.support.tiny_writers import LANGUAGES, tiny_generator
from workers.inference import engine, flowing
from workers.inference.reading import Coupled
from workers.inference.stepping import Group, Stepper
from workers.inference.writing import BUDGETS

STEPS = 24
BUDGET = 40

STEP = Stepper.step


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_generator(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each run through the model, its rows and the tokens that the longest may come to have."""
    found: list[tuple[int, int]] = []

    def step(stepper: Stepper, group: Group, **given: Any) -> None:
        found.append((len(group.lines), max(line.prompt.length for line in group.lines)))
        STEP(stepper, group, **given)

    monkeypatch.setattr(Stepper, "step", step)
    return found


def answered(folder: Path, texts: dict[int, Any], **options: Any) -> dict[int, Any]:
    settings = Settings(worker_threads=1, batch_tokens=BUDGET)
    asked = GenerateOptions(**{"max_new_tokens": STEPS, **options})
    return dict(engine.load(folder, asked, settings=settings).answer(texts, beat=no_beat))


def some(count: int) -> dict[int, str]:
    return dict(enumerate(some_texts(count, longest=6)))


@pytest.mark.parametrize("pause", [(0.01, 0.01), (0.25, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 4}])
def test_when_rows_leave_and_join_changes_no_text(
    family: str,
    pause: tuple[float, float],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, texts = tiny_generator(tmp_path / "model", family=family), some(25)
    alone = {row: answered(folder, {row: text}, **options)[row] for row, text in texts.items()}
    monkeypatch.setattr(flowing, "PAUSE", pause[0])
    monkeypatch.setattr(flowing, "LAST_PAUSE", pause[1])
    assert answered(folder, texts, **options) == alone


def test_what_is_under_way_stays_within_the_budget(
    llama: Path, groups: list[tuple[int, int]]
) -> None:
    assert len(answered(llama, some(40))) == 40
    assert max(rows for rows, _ in groups) > 1
    assert all(rows * longest <= BUDGETS * BUDGET for rows, longest in groups if rows > 1)


def test_rows_leave_when_they_have_ended_and_others_join(
    llama: Path, groups: list[tuple[int, int]]
) -> None:
    found = answered(llama, some(40))
    assert {answer.finish_reason for answer in found.values()} == {"stop", "length"}
    sizes = [rows for rows, _ in groups]
    changes = {after - before for before, after in itertools.pairwise(sizes)}
    assert min(changes) < 0 < max(changes)


def test_rows_with_lengths_of_their_own_are_written_together(
    llama: Path, groups: list[tuple[int, int]]
) -> None:
    texts = some(30)
    steps = {row: 1 + row % STEPS for row in texts}
    own = {row: Coupled(text, f'{{"max_new_tokens": {steps[row]}}}') for row, text in texts.items()}
    found = answered(llama, own)
    assert max(rows for rows, _ in groups) > 3
    for row, text in texts.items():
        assert found[row] == answered(llama, {row: text}, max_new_tokens=steps[row])[row]


def small(monkeypatch: pytest.MonkeyPatch, *, rows: int, at: int) -> None:
    """A device on which more rows at once run out of memory, at this token of a run."""

    def step(stepper: Stepper, group: Group, **given: Any) -> None:
        tokens = iter(range(STEPS))

        def beat() -> None:
            if next(tokens) == at and len(group.lines) > rows:
                raise torch.OutOfMemoryError("out of memory")

        STEP(stepper, group, **{**given, "beat": beat})

    monkeypatch.setattr(Stepper, "step", step)


@pytest.mark.parametrize("at", [0, 3])
def test_memory_that_runs_out_costs_no_row(
    llama: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answered(llama, some(30))
    small(monkeypatch, rows=2, at=at)
    assert answered(llama, some(30)) == expected


def test_a_prompt_that_does_not_fit_alone_is_an_error_of_its_row(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, rows=0, at=0)
    found = answered(llama, some(5))
    assert [found[row].code for row in range(5)] == 5 * [RowCode.OUT_OF_MEMORY]


def test_a_special_token_may_be_a_stop_text(llama: Path) -> None:
    """It is none of what is said."""
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModelForCausalLM
    tokenizer, model = tokenizers.from_pretrained(llama), models.from_pretrained(llama).eval()
    texts, marks = some(40), set(tokenizer.convert_tokens_to_ids(list(LANGUAGES)))
    found = answered(llama, texts, stop=LANGUAGES)
    stopped = 0
    for row, text in texts.items():
        inputs = tokenizer(text, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0].tolist()
        new = ids[inputs["input_ids"].shape[1] :]
        end = next((place + 1 for place, token in enumerate(new) if token in marks), len(new))
        assert found[row].output_tokens == end
        assert found[row].output == tokenizer.decode(new[:end], skip_special_tokens=True)
        stopped += end < len(new)
    assert stopped


@pytest.mark.parametrize("stop", ["\ufffd", "a\ufffd"])
def test_bytes_of_no_text_are_no_stop_text(stop: str) -> None:
    with pytest.raises(ValidationError, match=r"U\+FFFD"):
        GenerateOptions(stop=(stop,))
