"""The facts of a model's folder, and refusals of folders that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from jobs.models import inspection
from tests.support.tiny_models import LABELS, MAX_TOKENS, tiny_classifier, tiny_encoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Path) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        inspection.inspect(folder)
    return caught.value


def test_the_facts_of_a_classifier(folder: Path) -> None:
    facts = inspection.inspect(folder)
    assert (facts.model_type, facts.architectures) == ("bert", ("BertForSequenceClassification",))
    assert (facts.id2label, facts.has_head, facts.problem_type) == (LABELS, True, None)
    assert (facts.pooling, facts.max_tokens) == (None, MAX_TOKENS)


def test_the_facts_of_an_encoder(tmp_path: Path) -> None:
    facts = inspection.inspect(tiny_encoder(tmp_path / "model", pooling="cls"))
    assert (facts.has_head, facts.pooling, facts.max_tokens) == (False, "cls", MAX_TOKENS)


def test_the_older_pooling_flags_are_read(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    old = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    assert inspection.inspect(folder).pooling == "mean"


def test_roberta_counts_its_positions_after_the_padding_id(tmp_path: Path) -> None:
    facts = inspection.inspect(tiny_classifier(tmp_path / "model", family="roberta"))
    assert facts.max_tokens == MAX_TOKENS


def test_the_smallest_limit_of_all_files_counts(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 50}')
    assert inspection.inspect(folder).max_tokens == 50


def test_a_tokenizer_without_a_limit_adds_none(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    absurd = json.loads(path.read_text()) | {"model_max_length": 10**30}
    path.write_text(json.dumps(absurd))
    assert inspection.inspect(folder).max_tokens == MAX_TOKENS


def test_a_model_without_a_limit_has_none(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    change(folder, max_position_embeddings=None)
    assert inspection.inspect(folder).max_tokens is None


def test_labels_are_ordered_by_id(folder: Path) -> None:
    change(folder, id2label={"10": "k", **{str(index): str(index) for index in range(10)}})
    assert inspection.inspect(folder).id2label == (*"0123456789", "k")


def test_a_folder_without_a_config_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refusal(folder).code == "model_missing"


def test_a_model_without_a_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert refusal(folder).code == "model_no_tokenizer"


def test_a_model_that_needs_its_own_code_is_refused(folder: Path) -> None:
    change(folder, auto_map={"AutoModel": "modeling.Mine"})
    assert refusal(folder).code == "model_remote_code"


@pytest.mark.parametrize("content", ["{", "[]", "\x00\x01"])
def test_a_config_that_is_not_a_json_object_is_unreadable(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert refusal(folder).code == "model_unreadable"


@pytest.mark.parametrize("labels", [{"0": "a", "2": "b"}, {"x": "a"}, "ab"])
def test_labels_with_a_gap_are_unreadable(folder: Path, labels: object) -> None:
    change(folder, id2label=labels)
    assert refusal(folder).code == "model_unreadable"


def refused(folder: Path, *, labels: tuple[str, ...] | None = None) -> str | None:
    try:
        ClassifyOptions(labels=labels).check(inspection.inspect(folder))
    except ModelFailure as error:
        return error.code
    return None


def test_a_classifier_is_usable_with_and_without_labels(folder: Path) -> None:
    assert refused(folder) is None
    assert refused(folder, labels=("a", "b")) is None


def test_an_encoder_needs_labels(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "model")
    assert refused(encoder) == "model_has_no_head"
    assert refused(encoder, labels=("a", "b")) is None


def test_a_head_is_recognised_by_its_tensors_if_the_config_names_no_architecture(
    folder: Path,
) -> None:
    change(folder, architectures=None)
    assert refused(folder) is None


def test_a_model_that_only_generates_cannot_compare_labels(folder: Path) -> None:
    change(folder, architectures=["GPT2LMHeadModel"])
    assert refused(folder, labels=("a", "b")) == "model_not_an_encoder"


def test_a_regression_is_not_a_classifier(folder: Path) -> None:
    change(folder, problem_type="regression")
    assert refused(folder) == "model_not_a_classifier"
