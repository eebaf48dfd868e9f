from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from jobs.kinds import FROM_SCRATCH, Architecture, Task
from jobs.models import inspection
from tests.architectures.small_models import LABELS, some_rows, untrained
from workers.training import from_scratch

KINDS = [(each, task) for each, tasks in FROM_SCRATCH.items() for task in tasks]


def tokenizer(texts: list[str], *, task: Task, enclosed: bool = False) -> Any:
    return from_scratch.train_tokenizer(texts, task=task, enclosed=enclosed, max_tokens=None)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_the_same_corpus_and_seed_make_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.architectures import test_from_scratch;"
        "test_from_scratch.build_all(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "other"], check=True)
    build_all(tmp_path / "here")
    for architecture, task in KINDS:
        here = digest(tmp_path / "here" / f"{architecture}-{task}")
        assert digest(tmp_path / "other" / f"{architecture}-{task}") == here
        assert set(here) >= {"config.json", "model.safetensors", "tokenizer.json"}


def build_all(home: Path) -> None:
    home.mkdir()
    for architecture, task in KINDS:
        untrained(architecture, home / f"{architecture}-{task}", task=task)


def test_another_seed_makes_other_weights_and_the_same_tokenizer(tmp_path: Path) -> None:
    first = digest(untrained(Architecture.LSTM, tmp_path / "first"))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        from_scratch.build(
            Architecture.LSTM,
            task=Task.CLASSIFY,
            texts=[text for text, _ in some_rows(500)],
            labels=LABELS,
            multi_label=False,
            seed=8,
            max_tokens=64,
            folder=tmp_path / "second",
        )
    second = digest(tmp_path / "second")
    assert second["model.safetensors"] != first["model.safetensors"]
    assert second["tokenizer.json"] == first["tokenizer.json"]


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    untrained(Architecture.TEXTCNN, tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_folder_knows_its_labels_and_its_window(multi_label: bool, tmp_path: Path) -> None:  # noqa: FBT001
    folder = untrained(Architecture.TEXTCNN, tmp_path / "model", multi_label=multi_label)
    facts = inspection.inspect(folder)
    assert facts.id2label == LABELS
    assert facts.has_head
    assert facts.max_tokens == 64
    kind = "multi_label_classification" if multi_label else "single_label_classification"
    assert facts.problem_type == kind


def test_without_a_limit_the_window_is_the_default(tmp_path: Path) -> None:
    folder = untrained(Architecture.TRANSFORMER, tmp_path / "model", max_tokens=None)
    assert inspection.inspect(folder).max_tokens == from_scratch.MAX_TOKENS


def test_the_texts_are_read_once_and_may_be_an_iterator() -> None:
    texts = (text for text, _ in some_rows(100))
    assert (
        len(from_scratch.train_tokenizer(texts, task=Task.CLASSIFY, enclosed=True, max_tokens=8))
        > 3
    )


def test_every_han_character_is_a_token_of_its_own() -> None:
    found = tokenizer(
        ["银行公布亏损", "银行亏损公布", "科学家公布", "科学家银行"], task=Task.CLASSIFY
    )
    ids = found("银行公布科学家")["input_ids"]
    assert [found.decode([each]) for each in ids] == list("银行公布科学家")


def test_a_classifiers_tokenizer_levels_case_width_and_spaces() -> None:
    found = tokenizer(["GDP fell, gdp rose", "bank GDP bank"] * 2, task=Task.CLASSIFY)
    plain = found("gdp bank, bank")["input_ids"]
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "GDP")
    assert found(f"  {wide}\tBank,bank ")["input_ids"] == plain
    assert found("   ")["input_ids"] == []


@pytest.mark.parametrize(
    "text", ["Shares fell 3%: 银行公布 GDP。", "  two  spaces\n", "😀 ﷽", "🀄龘é", ""]
)
def test_a_generators_tokenizer_gives_every_text_back(text: str) -> None:
    found = tokenizer([row for row, _ in some_rows(50)], task=Task.GENERATE)
    ids = found(text)["input_ids"]
    assert ids[0] == found.bos_token_id
    assert found.decode(ids, skip_special_tokens=True) == text


def test_only_a_classifying_transformers_texts_are_enclosed_in_marks() -> None:
    texts = [row for row, _ in some_rows(50)]
    enclosed = tokenizer(texts, task=Task.CLASSIFY, enclosed=True)
    assert enclosed.convert_ids_to_tokens(enclosed("bank")["input_ids"]) == ["<s>", "bank", "</s>"]
    bare = tokenizer(texts, task=Task.CLASSIFY)
    assert bare.convert_ids_to_tokens(bare("bank")["input_ids"]) == ["bank"]


def test_the_saved_tokenizer_is_the_one_that_was_trained(tmp_path: Path) -> None:
    folder = untrained(Architecture.TEXTCNN, tmp_path / "model")
    auto: Any = AutoTokenizer
    saved = auto.from_pretrained(folder)
    fresh = from_scratch.train_tokenizer(
        [text for text, _ in some_rows(500)], task=Task.CLASSIFY, enclosed=False, max_tokens=64
    )
    for text, _ in some_rows(50, seed=5):
        assert saved(text)["input_ids"] == fresh(text)["input_ids"]
    assert saved.pad_token_id == 0
    assert saved.model_max_length == 64
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(saved)
