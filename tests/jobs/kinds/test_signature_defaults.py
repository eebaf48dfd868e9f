"""What a version's signature means for a job: defaults, warnings, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import CorpusFailure, JobFailure, ModelFailure
from jobs.kinds import (
    AnyTraining,
    ClassifyOptions,
    DatasetSplit,
    EmbedOptions,
    GenerateOptions,
    Options,
    Task,
    Text2TextOptions,
    signature_defaults,
    training,
)
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import RowForm, Signature
from tests.support.tiny_models import tiny_encoder

NEWS = Signature(task=Task.CLASSIFY, labels=("a", "b"), max_tokens=128)
TAGS = NEWS.model_copy(update={"multi_label": True})
PLAIN = Signature(task=Task.GENERATE, max_tokens=64)
CHAT = Signature(task=Task.GENERATE, chat=True, system="Be brief.")
TALKS = Signature(task=Task.GENERATE, chat=True, rows=RowForm.MESSAGES)
SHORT = Signature(task=Task.TEXT2TEXT, prompt="summarize: ", max_tokens=64)

DEFAULTS: list[tuple[Options, Signature, dict[str, object]]] = [
    (ClassifyOptions(), NEWS, {"max_tokens": 128, "multi_label": False}),
    (ClassifyOptions(), TAGS, {"max_tokens": 128, "multi_label": True}),
    (ClassifyOptions(max_tokens=32, multi_label=False), TAGS, {}),
    (ClassifyOptions(labels=("x", "y")), PLAIN, {}),
    (EmbedOptions(), NEWS, {}),
    (GenerateOptions(), PLAIN, {"chat": False, "system": None}),
    (GenerateOptions(), CHAT, {"chat": True, "system": "Be brief."}),
    (GenerateOptions(system="Shout."), CHAT, {"chat": True}),
    (GenerateOptions(chat=False), CHAT, {"system": None}),
    (GenerateOptions(chat=True), PLAIN, {"system": None}),
    (GenerateOptions(system="Shout."), PLAIN, {"chat": True}),
    (Text2TextOptions(), SHORT, {"prompt": "summarize: ", "max_tokens": 64}),
    (Text2TextOptions(prompt=""), SHORT, {"max_tokens": 64}),
]

WARNED: list[tuple[Options, Signature, list[str]]] = [
    (ClassifyOptions(), NEWS, []),
    (ClassifyOptions(max_tokens=128, multi_label=False), NEWS, []),
    (ClassifyOptions(max_tokens=256), NEWS, ["max_tokens is 256"]),
    (ClassifyOptions(multi_label=True), NEWS, ["multi_label is true"]),
    (ClassifyOptions(labels=("a", "b")), NEWS, ["its own head"]),
    (EmbedOptions(), NEWS, ["not trained to be compared"]),
    (GenerateOptions(), PLAIN, []),
    (GenerateOptions(chat=True), PLAIN, ["chat is true"]),
    (GenerateOptions(chat=False), CHAT, ["chat is false"]),
    (GenerateOptions(system="Shout."), CHAT, ["system is 'Shout.'"]),
    (GenerateOptions(system="Shout."), TALKS, []),
    (GenerateOptions(chat=False), TALKS, ["chat is false"]),
    (Text2TextOptions(prompt="shorten: "), SHORT, ["prompt is 'shorten: '"]),
    (Text2TextOptions(prompt=""), SHORT, ["prompt is ''"]),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    return inspection.inspect(tiny_encoder(tmp_path_factory.mktemp("models") / "plain"))


@pytest.mark.parametrize(("options", "signature", "defaults"), DEFAULTS)
def test_options_that_a_job_leaves_out_are_as_the_model_was_trained(
    options: Options, signature: Signature, defaults: dict[str, object]
) -> None:
    expected = options.model_copy(update=defaults)
    assert signature_defaults.with_defaults(options, signature) == expected
    assert signature_defaults.with_defaults(options, None) == options


@pytest.mark.parametrize(("options", "signature", "words"), WARNED)
def test_options_that_contradict_the_training_are_warned_of(
    options: Options, signature: Signature, words: list[str]
) -> None:
    sentences = signature_defaults.contradictions(options, signature)
    assert len(sentences) == len(words)
    assert all(word in sentence for word, sentence in zip(words, sentences, strict=True))
    assert signature_defaults.contradictions(options, None) == ()


def test_a_window_that_the_model_limits_anyway_is_no_contradiction() -> None:
    assert not signature_defaults.contradictions(ClassifyOptions(max_tokens=999), NEWS, limit=128)
    assert signature_defaults.contradictions(ClassifyOptions(), NEWS, pairs=True)


def test_labels_that_the_head_lacks_are_refused() -> None:
    with pytest.raises(ModelFailure, match=r"'x' is none of them") as refusal:
        ClassifyOptions(labels=("a", "x")).check_signature(NEWS)
    assert refusal.value.code == "model_other_labels"
    ClassifyOptions(labels=("a", "b")).check_signature(NEWS)


def spec(kind: str = "finetune", **fields: Any) -> AnyTraining:
    origin = {"model": "m"} if kind == "evaluate" else {"model": "m", "base": "b@1"}
    return training({"kind": kind, "corpus": {"file": "file-1"}, **origin, **fields})


def facts(
    plain: ModelFacts, *, chats: bool = True, signature: Signature | None = None
) -> ModelFacts:
    return replace(plain, chat_template="abc" if chats else None, signature=signature)


def signature_for(
    model: ModelFacts | None, *forms: RowForm, kind: str = "finetune", **fields: Any
) -> Signature:
    """How a job reads its rows, where its splits have these forms."""
    job = spec(kind, **fields)
    signature = signature_defaults.training_signature(job, model)
    return signature_defaults.with_row_forms(
        signature, job, dict(zip(DatasetSplit, forms, strict=False))
    )


PAIR, TEXT, MESSAGES = RowForm.PAIR, RowForm.TEXT, RowForm.MESSAGES


@pytest.mark.parametrize(
    ("chats", "known", "form", "chat", "expected"),
    [
        (True, None, PAIR, None, True),
        (True, None, PAIR, False, False),
        (True, None, TEXT, None, False),
        (True, None, MESSAGES, None, True),
        (False, None, PAIR, None, False),
        (False, None, TEXT, None, False),
        (True, PLAIN, PAIR, None, False),
        (True, PLAIN, PAIR, True, True),
        (True, PLAIN.model_copy(update={"rows": TEXT}), PAIR, None, True),
        (True, CHAT, PAIR, None, True),
        (True, CHAT, PAIR, False, False),
    ],
)
def test_training_uses_the_chat_template_if_there_is_one(
    *,
    plain: ModelFacts,
    chats: bool,
    known: Signature | None,
    form: RowForm,
    chat: bool | None,
    expected: bool,
) -> None:
    model = facts(plain, chats=chats, signature=known)
    signature = signature_for(model, form, task="generate", chat=chat)
    assert (signature.chat, signature.rows) == (expected, form)
    assert signature.system == (CHAT.system if known is CHAT and expected else None)


@pytest.mark.parametrize(
    ("fields", "chats", "forms", "code"),
    [
        ({"chat": True}, False, [PAIR], "model_no_chat_template"),
        ({"system": "S"}, False, [PAIR], "model_no_chat_template"),
        ({"chat": True}, True, [TEXT], "chat_needs_answers"),
        ({"chat": True}, True, [PAIR, TEXT], "chat_needs_answers"),
        ({}, False, [MESSAGES], "messages_need_chat"),
        ({"chat": False}, True, [MESSAGES], "messages_need_chat"),
        ({"chat": False}, True, [PAIR, MESSAGES], "messages_need_chat"),
    ],
)
def test_rows_that_do_not_fit_the_options_are_refused(
    *, plain: ModelFacts, fields: dict[str, Any], chats: bool, forms: list[RowForm], code: str
) -> None:
    with pytest.raises(JobFailure) as refusal:
        signature_for(facts(plain, chats=chats), *forms, task="generate", **fields)
    assert refusal.value.code == code
    assert isinstance(refusal.value, CorpusFailure | ModelFailure)


@pytest.mark.parametrize("signature", [NEWS, TAGS, PLAIN, CHAT, SHORT])
def test_an_evaluation_reads_as_the_model_was_trained(
    plain: ModelFacts, signature: Signature
) -> None:
    trained = signature.model_copy(update={"max_tokens": 32})
    signature = signature_for(facts(plain, signature=trained), PAIR, kind="evaluate")
    assert signature == trained.model_copy(update={"labels": ()})
    assert signature_defaults.differences(signature, trained) == ()


def test_an_evaluation_lists_where_it_differs_from_the_training(plain: ModelFacts) -> None:
    trained = CHAT.model_copy(update={"max_tokens": 32})
    model = facts(plain, signature=trained)
    signature = signature_for(model, PAIR, kind="evaluate", chat=False, max_tokens=16)
    sentences = signature_defaults.differences(signature, trained)
    assert [sentence.split()[0] for sentence in sentences] == ["chat", "system", "max_tokens"]


def test_an_evaluation_of_a_chat_model_on_plain_text_is_warned_of(plain: ModelFacts) -> None:
    signature = signature_for(facts(plain, signature=CHAT), TEXT, kind="evaluate")
    [sentence] = signature_defaults.differences(signature, CHAT)
    assert "plain text" in sentence


def test_an_evaluation_for_another_task_is_refused(plain: ModelFacts) -> None:
    with pytest.raises(ModelFailure, match="trained to classify") as refusal:
        signature_for(facts(plain, signature=NEWS), PAIR, kind="evaluate", task="generate")
    assert refusal.value.code == "model_other_task"


def test_a_model_without_a_signature_is_evaluated_by_its_config(plain: ModelFacts) -> None:
    multi_label = replace(plain, problem_type=inspection.MULTI_LABEL)
    assert signature_for(multi_label, PAIR, kind="evaluate").multi_label
    assert not signature_for(plain, PAIR, kind="evaluate").multi_label
    assert signature_for(facts(plain), PAIR, kind="evaluate", task="generate").chat
    assert not signature_for(facts(plain), TEXT, kind="evaluate", task="generate").chat


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (NEWS, "one label a row, of 2, window 128"),
        (TAGS, "any number of labels a row, of 2, window 128"),
        (PLAIN, "no chat template, window 64"),
        (CHAT, "chat template, system text 'Be brief.'"),
        (SHORT, "prompt 'summarize: ', window 64"),
    ],
)
def test_a_signature_is_described_in_words(signature: Signature, words: str) -> None:
    assert signature.words == words


def test_a_file_that_is_no_signature_is_a_fault_of_the_model(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    (folder / "nightshift_signature.json").write_text('{"task": "sing"}')
    with pytest.raises(ModelFailure, match="no signature"):
        inspection.inspect(folder)
