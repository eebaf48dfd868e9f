from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from jobs.models import compatibility, inspection
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


def resolving(reference: str, *, allowed: list[str]) -> str:
    with pytest.raises(ModelFailure) as caught:
        inspection.resolve(reference, allowed=allowed)
    return caught.value.code


def test_a_folder_under_an_allowed_prefix_is_resolved(folder: Path) -> None:
    assert inspection.resolve(str(folder), allowed=[str(folder.parent)]) == folder.resolve()


def test_a_sibling_whose_name_begins_like_the_prefix_is_refused(folder: Path) -> None:
    sibling = shutil.copytree(folder, folder.parent / "model-2")
    assert resolving(str(sibling), allowed=[str(folder)]) == "model_refused"


def test_dots_do_not_climb_out_of_the_prefix(folder: Path) -> None:
    inside = folder.parent / "inside"
    inside.mkdir()
    assert resolving(f"{inside}/../model", allowed=[str(inside)]) == "model_refused"


def test_a_link_out_of_the_prefix_is_refused(folder: Path) -> None:
    inside = folder.parent / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(folder)
    assert resolving(str(inside / "link"), allowed=[str(inside)]) == "model_refused"


def test_an_allowed_prefix_may_itself_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert inspection.resolve(str(link), allowed=[str(link)]) == folder.resolve()


def test_a_refused_folder_is_refused_whether_or_not_it_exists(folder: Path) -> None:
    assert resolving("/nowhere/at/all", allowed=[str(folder)]) == "model_refused"


def test_an_allowed_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert resolving(str(tmp_path / "none"), allowed=["/"]) == "model_missing"


def test_a_relative_folder_is_refused() -> None:
    assert resolving("models/mine", allowed=["/"]) == "model_refused"


@pytest.mark.parametrize(
    "allowed", [[], ["/"], ["hf:other/"], ["hf:or"], ["hf:org/na"], ["org/"]], ids=str
)
def test_a_hub_model_off_the_allow_list_is_refused(allowed: list[str]) -> None:
    assert resolving("hf:org/name", allowed=allowed) == "model_refused"


@pytest.mark.parametrize("reference", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a b/c"])
def test_a_misspelt_hub_reference_is_missing(reference: str) -> None:
    assert resolving(reference, allowed=["hf:"]) == "model_missing"


def test_the_facts_of_a_classifier(folder: Path) -> None:
    facts = inspection.inspect(folder)
    assert (facts.model_type, facts.architectures) == ("bert", ("BertForSequenceClassification",))
    assert (facts.id2label, facts.has_head, facts.problem_type) == (LABELS, True, None)
    assert (facts.pooling, facts.max_tokens) == (None, MAX_TOKENS)


def test_the_facts_of_an_encoder(tmp_path: Path) -> None:
    facts = inspection.inspect(tiny_encoder(tmp_path / "model", pooling="cls"))
    assert (facts.has_head, facts.pooling, facts.max_tokens) == (False, "cls", MAX_TOKENS)


def test_the_old_spelling_of_pooling_is_understood(folder: Path) -> None:
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


def test_a_model_that_names_no_limit_has_none(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    change(folder, max_position_embeddings=None)
    assert inspection.inspect(folder).max_tokens is None


def test_labels_are_ordered_by_id(folder: Path) -> None:
    change(folder, id2label={"10": "k", **{str(index): str(index) for index in range(10)}})
    assert inspection.inspect(folder).id2label == (*"0123456789", "k")


def test_the_digest_is_of_contents_and_not_of_the_place(folder: Path, saved: Path) -> None:
    assert inspection.inspect(folder).digest == inspection.inspect(saved).digest


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_one_changed_byte_changes_the_digest(folder: Path, name: str) -> None:
    before = inspection.inspect(folder).digest
    content = (folder / name).read_bytes()
    changed = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    (folder / name).write_bytes(changed if name == "model.safetensors" else content + b" ")
    assert inspection.inspect(folder).digest != before


def test_a_readme_does_not_change_the_digest(folder: Path) -> None:
    before = inspection.inspect(folder).digest
    (folder / "README.md").write_text("new")
    assert inspection.inspect(folder).digest == before


def test_weights_are_not_read_again_for_the_digest(folder: Path) -> None:
    before = inspection.inspect(folder).digest
    path = folder / "model.safetensors"
    state, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert inspection.inspect(folder).digest == before


def test_a_folder_without_a_config_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refusal(folder).code == "model_missing"


def test_pickled_weights_are_refused_and_the_way_out_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.code == "model_not_safetensors"
    assert "safe_serialization=True" in error.message


def test_a_model_without_a_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert refusal(folder).code == "model_no_tokenizer"


def test_a_model_with_code_of_its_own_is_refused(folder: Path) -> None:
    change(folder, auto_map={"AutoModel": "modeling.Mine"})
    assert refusal(folder).code == "model_remote_code"


@pytest.mark.parametrize("content", ["{", "[]", "\x00\x01"])
def test_a_config_that_is_no_json_object_is_unreadable(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert refusal(folder).code == "model_unreadable"


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_weights_that_were_cut_short_are_unreadable(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(folder).code == "model_unreadable"


def test_a_pointer_file_in_place_of_weights_is_unreadable(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90\n"
    (folder / "model.safetensors").write_text(pointer)
    assert refusal(folder).code == "model_unreadable"


def test_every_shard_of_sharded_weights_must_be_there(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert refusal(folder).code == "model_unreadable"


def test_a_header_that_promises_more_than_the_file_has_is_not_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert refusal(folder).code == "model_unreadable"


@pytest.mark.parametrize("labels", [{"0": "a", "2": "b"}, {"x": "a"}, "ab"])
def test_labels_with_a_gap_are_unreadable(folder: Path, labels: object) -> None:
    change(folder, id2label=labels)
    assert refusal(folder).code == "model_unreadable"


def refused(folder: Path, *, labels: tuple[str, ...] | None = None) -> str | None:
    try:
        compatibility.check(inspection.inspect(folder), ClassifyOptions(labels=labels))
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


def test_a_head_is_recognised_by_its_tensors_where_no_architecture_is_named(folder: Path) -> None:
    change(folder, architectures=None)
    assert refused(folder) is None


def test_a_model_that_only_generates_cannot_place_labels(folder: Path) -> None:
    change(folder, architectures=["GPT2LMHeadModel"])
    assert refused(folder, labels=("a", "b")) == "model_not_an_encoder"


def test_a_regression_is_not_a_classifier(folder: Path) -> None:
    change(folder, problem_type="regression")
    assert refused(folder) == "model_not_a_classifier"
