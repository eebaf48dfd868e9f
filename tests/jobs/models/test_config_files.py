"""A wrong file of a model is a clear failure, never a traceback."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import ModelFailure
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from tests.support.tiny_models import MAX_TOKENS, sentence_files, tiny_encoder

SENTENCES = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
TOKENIZER = "tokenizer_config.json"
FILES = ("config.json", SENTENCES, POOLING, "sentence_bert_config.json", TOKENIZER)
FIELDS = {
    "config.json": (
        *("architectures", "model_type", "problem_type", "hidden_size", "is_encoder_decoder"),
        *("max_position_embeddings", "pad_token_id", "id2label", "n_embd"),
    ),
    SENTENCES: ("prompts", "default_prompt_name", "truncate_dim"),
    POOLING: ("pooling_mode", "include_prompt", "pooling_mode_cls_token"),
    "sentence_bert_config.json": ("max_seq_length", "do_lower_case"),
    TOKENIZER: ("model_max_length", "chat_template"),
}
DEEP = "[" * 100_000
NOT_JSON = ("", "{", "\x00\x01", DEEP, '{"a": NaN, }')

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["mean", "default"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_encoder(tmp_path_factory.mktemp("saved") / "model")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 50}')
    return sentence_files(folder, prompts={"query": "find: "})


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def change(folder: Path, file: str, **fields: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def refusal(folder: Path) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        inspection.inspect(folder)
    assert caught.value.code == "model_unreadable"
    return caught.value


def facts(folder: Path, file: str, **fields: Any) -> ModelFacts:
    return inspection.inspect(change(folder, file, **fields))


@pytest.mark.parametrize("content", NOT_JSON, ids=["empty", "cut", "binary", "deep", "comma"])
@pytest.mark.parametrize("file", [*FILES, "modules.json"])
def test_a_file_that_is_not_json_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    assert f"{Path(file).name} of the model is not readable JSON" in refusal(folder).message


@pytest.mark.parametrize("content", ["[]", "3", '"mean"', "null", "true"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_without_an_object_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    assert f"{Path(file).name} of the model must be a JSON object" in refusal(folder).message


@pytest.mark.parametrize("content", ["{}", "3", "null", '["Transformer"]', "[{}, 3]"])
def test_modules_that_are_not_a_list_of_objects_are_refused(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content)
    assert "must be a JSON array of objects" in refusal(folder).message


@pytest.mark.parametrize(
    ("file", "field", "value", "must"),
    [
        ("config.json", "architectures", 3, "a text or an array of texts"),
        ("config.json", "architectures", [None], "a text or an array of texts"),
        ("config.json", "model_type", ["bert"], "a text"),
        ("config.json", "problem_type", 1, "a text"),
        ("config.json", "hidden_size", "384", "a number"),
        ("config.json", "hidden_size", True, "a number"),
        ("config.json", "is_encoder_decoder", "no", "true or false"),
        ("config.json", "max_position_embeddings", "512", "a number"),
        ("config.json", "id2label", [["a", "b"]], "a map of 0, 1, 2 ... to names"),
        (POOLING, "pooling_mode", 3, "a text or an array of texts"),
        (POOLING, "pooling_mode", {"mean": True}, "a text or an array of texts"),
        (POOLING, "pooling_mode", ["cls", None], "a text or an array of texts"),
        (POOLING, "include_prompt", "false", "true or false"),
        (SENTENCES, "prompts", ["query"], "an object"),
        (SENTENCES, "default_prompt_name", 0, "a text"),
        (SENTENCES, "default_prompt_name", "document", "one of the names in prompts"),
        (SENTENCES, "truncate_dim", "256", "a number"),
        (SENTENCES, "truncate_dim", 0, "a whole number of at least 1"),
        (SENTENCES, "truncate_dim", 0.5, "a whole number of at least 1"),
        (SENTENCES, "truncate_dim", float("nan"), "a whole number of at least 1"),
        (SENTENCES, "truncate_dim", float("inf"), "a whole number of at least 1"),
        ("sentence_bert_config.json", "max_seq_length", [128], "a number"),
        ("sentence_bert_config.json", "do_lower_case", 1, "true or false"),
        (TOKENIZER, "model_max_length", "128", "a number"),
        (TOKENIZER, "chat_template", {"default": "..."}, "a text"),
    ],
)
def test_a_field_of_a_wrong_type_is_named_with_what_it_must_be(
    folder: Path, file: str, field: str, value: object, must: str
) -> None:
    message = refusal(change(folder, file, **{field: value})).message
    assert message.startswith(f"{field} in {Path(file).name} of the model must be {must}, not ")


def test_an_older_pooling_flag_must_be_true_or_false(folder: Path) -> None:
    change(folder, POOLING, pooling_mode=None, pooling_mode_mean_tokens="yes")
    assert "must be true or false" in refusal(folder).message


def test_a_prompt_that_is_not_a_text_is_refused(folder: Path) -> None:
    change(folder, SENTENCES, default_prompt_name="query", prompts={"query": 3})
    assert refusal(folder).message == (
        "query in prompts in config_sentence_transformers.json of the model must be a text, not 3"
    )


@pytest.mark.parametrize(
    ("entry", "must"), [({"type": 3}, "type in"), ({"type": "a", "path": []}, "path in")]
)
def test_a_module_with_wrong_fields_is_refused(
    folder: Path, entry: dict[str, Any], must: str
) -> None:
    (folder / "modules.json").write_text(json.dumps([entry]))
    assert refusal(folder).message.startswith(f"{must} modules.json of the model must be a text")


def test_a_long_wrong_value_is_not_repeated_in_full(folder: Path) -> None:
    message = refusal(change(folder, "config.json", hidden_size="x" * 100_000)).message
    assert len(message) < 300


@pytest.mark.parametrize(
    "weight_map", ["model.safetensors", ["a"], {"a": 3}, {"a": "../a"}, {"a": ""}]
)
def test_an_index_of_weights_names_files_of_its_folder(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").rename(folder.parent / "a")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refusal(folder)


@pytest.mark.parametrize(
    "header",
    ["[]", '{"a": 3}', '{"a": {"data_offsets": [0]}}', '{"a": {"data_offsets": "ab"}}', DEEP],
)
def test_weights_with_a_wrong_header_are_unreadable(folder: Path, header: str) -> None:
    content = struct.pack("<Q", len(header)) + header.encode()
    (folder / "model.safetensors").write_bytes(content)
    assert "header cannot be read" in refusal(folder).message


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode": ["cls", "mean"]}, "cls+mean"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}, "lasttoken"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, "max+mean"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"word_embedding_dimension": 384}, "mean"),
        ({}, None),
    ],
)
def test_pooling_is_read_from_the_current_field_and_from_the_older_flags(
    folder: Path, config: dict[str, Any], pooling: str | None
) -> None:
    (folder / POOLING).write_text(json.dumps(config))
    assert inspection.inspect(folder).pooling == pooling


@pytest.mark.parametrize(
    ("kind", "path", "name"),
    [
        ("sentence_transformers.models.Transformer", "", "Transformer"),
        ("sentence_transformers.base.modules.transformer.Transformer", "", "Transformer"),
        ("sentence_transformers.models.Normalize", "2_Normalize", "Normalize"),
        ("sentence_transformers.models.Dense", "2_Dense", "Dense"),
        ("sentence_transformers.models.Transformer", "0_A", "Transformer in the folder '0_A'"),
        ("sentence_transformers.models.Pooling", "2_Pooling", "Pooling in the folder '2_Pooling'"),
        ("custom_st.Transformer", "", "custom_st.Transformer"),
        (None, None, "a module without a type"),
    ],
)
def test_only_the_librarys_own_modules_in_their_folders_have_short_names(
    folder: Path, kind: str | None, path: str | None, name: str
) -> None:
    (folder / "modules.json").write_text(json.dumps([{"type": kind, "path": path}]))
    assert inspection.inspect(folder).modules == (name,)


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"default_prompt_name": "query"}, "find: "),
        ({"default_prompt_name": None}, ""),
        ({}, ""),
        ({"default_prompt_name": "a", "prompts": {"a": ""}}, ""),
        ({"default_prompt_name": "a", "prompts": {"a": None}}, ""),
        ({"prompts": None}, ""),
    ],
)
def test_the_prompt_is_the_default_one(folder: Path, fields: dict[str, Any], prompt: str) -> None:
    assert facts(folder, SENTENCES, **fields).prompt == prompt


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"hidden_size": 32}, 32),
        ({"hidden_size": None, "d_model": 16}, 16),
        ({"hidden_size": None, "dim": 16.0}, 16),
        ({"hidden_size": None, "n_embd": 16}, 16),
        ({"hidden_size": None}, None),
        ({"hidden_size": 0}, None),
        ({"hidden_size": -1, "n_embd": 16}, 16),
        ({"hidden_size": 0.5, "n_embd": 16}, 16),
    ],
)
def test_the_width_is_read_from_each_of_its_fields(
    folder: Path, fields: dict[str, Any], width: int | None
) -> None:
    assert facts(folder, "config.json", **fields).width == width


@pytest.mark.parametrize(
    ("template", "has_template"),
    [
        ("{{ messages }}", True),
        ("", False),
        (None, False),
        ([{"name": "default", "template": "..."}], True),
        ([{"name": "tool_use", "template": "..."}], False),
        ([], False),
        ([3], False),
    ],
)
def test_a_default_template_is_a_chat_template(
    folder: Path, template: object, *, has_template: bool
) -> None:
    assert facts(folder, TOKENIZER, chat_template=template).has_chat_template is has_template


def test_a_template_in_its_own_file_is_a_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert inspection.inspect(folder).has_chat_template


def test_missing_and_infinite_limits_are_ignored(folder: Path) -> None:
    change(folder, TOKENIZER, model_max_length=float("inf"))
    change(folder, "sentence_bert_config.json", max_seq_length=None)
    assert facts(folder, "config.json", max_position_embeddings=-1).max_tokens is None


@pytest.mark.parametrize("limit", [0, 0.5, -1])
def test_a_limit_below_one_token_is_ignored(folder: Path, limit: float) -> None:
    change(folder, "sentence_bert_config.json", max_seq_length=limit)
    assert inspection.inspect(folder).max_tokens == MAX_TOKENS


def test_the_sentence_config_may_be_named_after_another_model(folder: Path) -> None:
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    model = facts(folder, "sentence_roberta_config.json", max_seq_length=40, do_lower_case=True)
    assert (model.max_tokens, model.lowercases) == (40, True)


def test_architectures_may_be_one_text_instead_of_an_array(folder: Path) -> None:
    assert facts(folder, "config.json", architectures="BertModel").architectures == ("BertModel",)


def test_an_adapter_embeds_like_its_base(folder: Path, tmp_path: Path) -> None:
    adapter = tiny_encoder(tmp_path / "adapter", pooling=None)
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    sentence_files(
        folder,
        modules=("Transformer", "Pooling", "Normalize"),
        pooling="cls",
        include_prompt=False,
        default_prompt_name="query",
        prompts={"query": "find: "},
        truncate_dim=8,
    )
    change(folder, "sentence_bert_config.json", do_lower_case=True)
    (adapter / "base").symlink_to(folder)
    model = inspection.inspect(adapter)
    assert (model.pooling, model.modules[-1], model.prompt) == ("cls", "Normalize", "find: ")
    assert (model.pools_prompt, model.dimensions, model.lowercases) == (False, 8, True)


@given(data=st.data(), value=anything)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_any_value_of_a_field_is_read_or_refused(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: object
) -> None:
    folder = tmp_path_factory.mktemp("odd") / "model"
    file = data.draw(st.sampled_from(FILES))
    field = data.draw(st.sampled_from(FIELDS[file]))
    shutil.copytree(saved, folder)
    change(folder, file, **{field: value})
    result = facts_or_refusal(folder)
    if isinstance(result, ModelFailure):
        assert result.code == "model_unreadable"
        assert field in result.message
    else:
        assert result.width is None or result.width > 0
        assert result.max_tokens is None or result.max_tokens > 0


def facts_or_refusal(folder: Path) -> ModelFacts | ModelFailure:
    try:
        return inspection.inspect(folder)
    except ModelFailure as failure:
        return failure
