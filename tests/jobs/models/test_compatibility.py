"""What each kind of job needs of a model, found out before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ModelFailure
from jobs.kinds import (
    ClassifyOptions,
    EmbedOptions,
    GenerateOptions,
    Options,
    PipelineOptions,
    PipelineTask,
    Pooling,
    Text2TextOptions,
)
from jobs.kinds.pipeline import PARAMETERS, PIPELINES
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from tests.support.tiny_models import sentence_files, tiny_classifier, tiny_encoder
from tests.support.tiny_pipelines import (
    entity_finder,
    image_classifier,
    image_matcher,
    transcriber,
)
from tests.support.tiny_writers import MAX_TOKENS, tiny_generator, tiny_translator

FOLLOWED = ("Transformer", "Pooling")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFacts]:
    """The facts of a model of each sort, by its name."""
    home = tmp_path_factory.mktemp("models")
    folders = {
        "encoder": tiny_encoder(home / "encoder"),
        "classifier": tiny_classifier(home / "classifier"),
        "llama": tiny_generator(home / "llama"),
        "gpt2": tiny_generator(home / "gpt2", family="gpt2"),
        "chatter": tiny_generator(home / "chatter", chat=True),
        "t5": tiny_translator(home / "t5"),
        "entities": entity_finder(home / "entities"),
        "images": image_classifier(home / "images"),
        "matcher": image_matcher(home / "matcher"),
        "speech": transcriber(home / "speech"),
        "bart": tiny_translator(home / "bart", family="bart"),
        "sentences": sentence_files(
            tiny_encoder(home / "sentences"), modules=("Transformer", "Pooling", "Normalize")
        ),
        "a writer that was taught to embed": sentence_files(
            tiny_generator(home / "taught"), pooling="lasttoken"
        ),
    }
    return {name: inspection.inspect(folder) for name, folder in folders.items()}


def refused(facts: ModelFacts, options: Options) -> ModelFailure | None:
    try:
        options.check(facts)
    except ModelFailure as failure:
        return failure
    return None


def code(facts: ModelFacts, options: Options) -> str | None:
    failure = refused(facts, options)
    return failure.code if failure else None


LABELS = ClassifyOptions(labels=("a", "b"))
CASES: list[tuple[str, Options, str | None]] = [
    ("classifier", ClassifyOptions(), None),
    ("classifier", LABELS, None),
    ("classifier", EmbedOptions(), None),
    ("classifier", GenerateOptions(), "model_not_a_generator"),
    ("classifier", Text2TextOptions(), "model_not_text2text"),
    ("encoder", ClassifyOptions(), "model_has_no_head"),
    ("encoder", LABELS, None),
    ("encoder", EmbedOptions(), None),
    ("encoder", GenerateOptions(), "model_not_a_generator"),
    ("encoder", Text2TextOptions(), "model_not_text2text"),
    ("sentences", LABELS, None),
    ("sentences", EmbedOptions(), None),
    ("llama", ClassifyOptions(), "model_has_no_head"),
    ("llama", LABELS, "model_not_an_encoder"),
    ("llama", EmbedOptions(), "model_not_an_encoder"),
    ("llama", GenerateOptions(), None),
    ("llama", GenerateOptions(chat=False), None),
    ("llama", GenerateOptions(chat=True), "model_no_chat_template"),
    ("llama", GenerateOptions(system="Be short."), "model_no_chat_template"),
    ("llama", GenerateOptions(max_new_tokens=MAX_TOKENS - 1), None),
    ("llama", GenerateOptions(max_new_tokens=MAX_TOKENS), "model_too_short"),
    ("llama", Text2TextOptions(), "model_not_text2text"),
    ("gpt2", GenerateOptions(), None),
    ("gpt2", EmbedOptions(), "model_not_an_encoder"),
    ("chatter", GenerateOptions(), None),
    ("chatter", GenerateOptions(chat=True), None),
    ("chatter", GenerateOptions(system="Be short."), None),
    ("a writer that was taught to embed", EmbedOptions(), None),
    ("a writer that was taught to embed", LABELS, None),
    ("a writer that was taught to embed", GenerateOptions(), None),
    ("t5", Text2TextOptions(), None),
    ("t5", GenerateOptions(), "model_not_a_generator"),
    ("t5", EmbedOptions(), "model_not_an_encoder"),
    ("t5", LABELS, "model_not_an_encoder"),
    ("bart", Text2TextOptions(), None),
    ("bart", GenerateOptions(), "model_not_a_generator"),
    ("bart", EmbedOptions(), "model_not_an_encoder"),
]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_a_model_is_refused_for_what_it_cannot_do(
    found: dict[str, ModelFacts], name: str, options: Options, expected: str | None
) -> None:
    assert code(found[name], options) == expected


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("encoder", GenerateOptions(), ["causal language model", "BertModel"]),
        ("llama", Text2TextOptions(), ["encoder with a decoder", "LlamaForCausalLM"]),
        ("llama", EmbedOptions(), ["embed needs an encoder", "LlamaForCausalLM"]),
        ("llama", LABELS, ["labels need an encoder", "LlamaForCausalLM"]),
        ("bart", EmbedOptions(), ["embed needs an encoder", "BartForConditionalGeneration"]),
        ("llama", GenerateOptions(chat=True), ["chat template", "leave chat and system out"]),
        ("llama", GenerateOptions(max_new_tokens=500), ["less than 256", "not 500"]),
        ("encoder", EmbedOptions(dimensions=33), ["at most 32", "not 33"]),
    ],
)
def test_a_refusal_says_what_must_be_and_what_was_given(
    found: dict[str, ModelFacts], name: str, options: Options, words: list[str]
) -> None:
    failure = refused(found[name], options)
    assert failure is not None
    assert [word for word in words if word not in failure.message] == []


def embedding(folder: Path, **options: Any) -> str | None:
    return code(inspection.inspect(folder), EmbedOptions(**options))


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "model", pooling=None)


@pytest.mark.parametrize("asked", [None, *Pooling])
@pytest.mark.parametrize("named", ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens"])
def test_known_poolings_are_followed(encoder: Path, named: str, asked: Pooling | None) -> None:
    assert embedding(sentence_files(encoder, pooling=named), pooling=asked) is None


@pytest.mark.parametrize("named", ["weightedmean", "cls+mean", "first"])
def test_a_pooling_that_is_not_known_is_refused_unless_another_is_asked_for(
    encoder: Path, named: str
) -> None:
    sentence_files(encoder, pooling=named)
    assert embedding(encoder) == "model_unsupported"
    assert embedding(encoder, pooling="mean") is None


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (FOLLOWED, None),
        ((*FOLLOWED, "Normalize"), None),
        ((*FOLLOWED, "Dense"), "model_unsupported"),
        ((*FOLLOWED, "Normalize", "Normalize"), "model_unsupported"),
        (("Transformer", "Normalize", "Pooling"), "model_unsupported"),
        (("Transformer",), "model_unsupported"),
        (("Pooling",), "model_unsupported"),
        (("Router", "Pooling"), "model_unsupported"),
    ],
)
def test_modules_must_be_those_that_are_followed_in_their_order(
    encoder: Path, modules: tuple[str, ...], expected: str | None
) -> None:
    sentence_files(encoder, modules=modules)
    assert embedding(encoder) == expected
    assert code(inspection.inspect(encoder), LABELS) == expected


def test_modules_with_a_pooling_whose_file_is_missing_are_refused(encoder: Path) -> None:
    sentence_files(encoder, pooling=None)
    assert embedding(encoder) == "model_unsupported"


def test_a_config_that_does_not_say_how_long_a_vector_is_is_refused(encoder: Path) -> None:
    path = encoder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size"', '"size"'))
    assert embedding(encoder) == "model_unsupported"


@pytest.mark.parametrize(
    ("asked", "kept", "width"), [(None, None, 32), (8, None, 8), (None, 16, 16), (20, 16, 20)]
)
def test_the_width_of_an_embedding_is_the_options_or_the_files_or_the_models(
    encoder: Path, asked: int | None, kept: int | None, width: int
) -> None:
    sentence_files(encoder, truncate_dim=kept)
    facts, options = inspection.inspect(encoder), EmbedOptions(dimensions=asked)
    assert code(facts, options) is None
    assert options.width(facts) == width


def test_files_that_keep_more_numbers_than_there_are_are_refused(encoder: Path) -> None:
    assert embedding(sentence_files(encoder, truncate_dim=33)) == "model_too_narrow"


def test_a_model_that_names_no_limit_writes_as_much_as_is_asked(tmp_path: Path) -> None:
    folder = tiny_generator(tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"max_position_embeddings"', '"most"'))
    assert code(inspection.inspect(folder), GenerateOptions(max_new_tokens=30_000)) is None


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("entities", None, "token-classification"),
        ("images", None, "image-classification"),
        ("speech", None, "automatic-speech-recognition"),
        ("entities", "fill-mask", "fill-mask"),
    ],
)
def test_a_pipelines_task_is_the_options_or_the_models(
    found: dict[str, ModelFacts], name: str, task: str | None, expected: str
) -> None:
    assert PipelineOptions.model_validate({"task": task}).task_of(found[name]) == expected


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("entities", "token-classification", None),
        ("images", "image-classification", None),
        ("speech", None, None),
        ("matcher", None, "pipeline_refused"),
        ("entities", "fill-mask", "model_no_pipeline"),
        ("images", "token-classification", "model_no_pipeline"),
        *((name, None, "model_no_pipeline") for name in ("encoder", "classifier", "gpt2", "t5")),
    ],
)
def test_a_pipeline_needs_a_model_of_its_task(
    found: dict[str, ModelFacts], name: str, task: str | None, expected: str | None
) -> None:
    assert code(found[name], PipelineOptions.model_validate({"task": task})) == expected


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("images", {"images": "/etc/hostname"}),
        ("matcher", {"candidate_labels": ["a", "b"], "image": "http://localhost/a.png"}),
        ("matcher", {"candidate_labels": ["a", "b"], "images": ["/etc/hostname"]}),
        ("speech", {"inputs": "/etc/hostname"}),
        ("images", {"timeout": 1}),
        ("entities", {"agregation_strategy": "simple"}),
    ],
)
def test_a_pipeline_is_called_with_what_its_task_takes_and_never_with_another_input(
    found: dict[str, ModelFacts], name: str, parameters: dict[str, object]
) -> None:
    task = "zero-shot-image-classification" if name == "matcher" else None
    options = PipelineOptions.model_validate({"task": task, "parameters": parameters})
    with pytest.raises(ModelFailure, match=f"not {list(parameters)[-1]}$") as caught:
        options.check(found[name])
    assert caught.value.code == "pipeline_refused"


def test_every_task_of_a_pipeline_says_what_it_takes() -> None:
    assert set(PARAMETERS) == set(PIPELINES) == set(PipelineTask)


@pytest.mark.parametrize(
    "options",
    [
        ClassifyOptions(),
        LABELS,
        EmbedOptions(),
        GenerateOptions(),
        Text2TextOptions(),
    ],
)
def test_a_model_of_images_alone_reads_no_texts(
    found: dict[str, ModelFacts], options: Options
) -> None:
    assert code(found["images"], options) == "model_no_tokenizer"
