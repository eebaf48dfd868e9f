"""The kind ``score``: its spec, and what it asks of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs import kinds
from jobs.errors import ModelFailure
from jobs.kinds import ScoreOptions, ScoreSpec
from jobs.models import inspection
from jobs.settings import Settings
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.support.tiny_writers import tiny_generator


def parsed(*, pairs: bool = False, **options: Any) -> ScoreSpec:
    corpus = {"file": "file-1"} | ({"pair_column": "passage"} if pairs else {})
    spec = kinds.parse({"kind": "score", "corpus": corpus, "model": "/m", "score": options})
    assert isinstance(spec, ScoreSpec)
    return spec


def refusal(folder: Path) -> str | None:
    try:
        ScoreOptions().check(inspection.inspect(folder))
    except ModelFailure as failure:
        return failure.code
    return None


def test_the_score_is_the_logit_unless_a_sigmoid_is_asked_for() -> None:
    assert parsed().score.activation == "none"
    assert parsed(activation="sigmoid").score.activation == "sigmoid"
    with pytest.raises(ValidationError, match="activation"):
        parsed(activation="softmax")


def test_a_row_is_a_text_or_a_pair() -> None:
    assert not parsed().reads_pairs
    assert parsed(pairs=True).reads_pairs


def test_single_texts_are_read_in_windows_and_pairs_are_not() -> None:
    assert parsed(long_texts="stride").score.long_texts == "stride"
    with pytest.raises(ValidationError, match="one window: leave stride out"):
        parsed(pairs=True, long_texts="stride")


def test_a_row_has_one_number() -> None:
    assert [column.name for column in parsed().result_columns] == ["score", "tokens", "truncated"]


def test_a_chunk_has_as_many_rows_as_of_other_kinds_of_one_forward_pass() -> None:
    settings = Settings(chunk_rows=7, written_chunk_rows=3)
    assert parsed().default_chunk_rows(settings) == 7


@pytest.mark.parametrize("problem_type", [None, "regression", "single_label_classification"])
def test_a_head_with_one_output_can_score(tmp_path: Path, problem_type: str | None) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=("LABEL_0",))
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"problem_type": problem_type}
    path.write_text(json.dumps(config))
    assert refusal(folder) is None


def test_a_config_that_has_the_number_of_outputs_alone_is_understood(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=("LABEL_0",))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["id2label"], config["label2id"]
    path.write_text(json.dumps(config | {"num_labels": 1}))
    assert refusal(folder) is None
    path.write_text(json.dumps(config))
    assert refusal(folder) == "model_several_outputs"  # two, as the library has it


def test_models_that_have_no_score_are_refused(tmp_path: Path) -> None:
    assert refusal(tiny_classifier(tmp_path / "labels")) == "model_several_outputs"
    assert refusal(tiny_encoder(tmp_path / "encoder")) == "model_has_no_head"
    assert refusal(tiny_generator(tmp_path / "writer")) == "model_has_no_head"
