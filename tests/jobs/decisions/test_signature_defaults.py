"""What a version's signature means for a job, case by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.datasets import Split
from jobs.decisions import signature_defaults
from jobs.errors import CorpusFailure, JobFailure, ModelFailure
from jobs.kinds import (
    AnyTraining,
    ClassifyOptions,
    EmbedOptions,
    GenerateOptions,
    Options,
    Task,
    Text2TextOptions,
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

TAKEN: list[tuple[Options, Signature, dict[str, object]]] = [
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


@pytest.mark.parametrize(("options", "signature", "taken"), TAKEN)
def test_what_a_job_leaves_out_is_as_the_model_was_trained(
    options: Options, signature: Signature, taken: dict[str, object]
) -> None:
    assert signature_defaults.applied(options, signature) == options.model_copy(update=taken)
    assert signature_defaults.applied(options, None) == options


@pytest.mark.parametrize(("options", "signature", "words"), WARNED)
def test_what_contradicts_the_training_is_said(
    options: Options, signature: Signature, words: list[str]
) -> None:
    found = signature_defaults.contradictions(options, signature)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))
    assert signature_defaults.contradictions(options, None) == ()


def test_a_window_that_the_model_cuts_anyway_is_no_contradiction() -> None:
    assert not signature_defaults.contradictions(ClassifyOptions(max_tokens=999), NEWS, limit=128)
    assert signature_defaults.contradictions(ClassifyOptions(), NEWS, pairs=True)


def test_labels_that_the_head_lacks_are_refused() -> None:
    with pytest.raises(ModelFailure, match=r"'x' is none of them") as refusal:
        signature_defaults.check(ClassifyOptions(labels=("a", "x")), NEWS)
    assert refusal.value.code == "model_other_labels"
    signature_defaults.check(ClassifyOptions(labels=("a", "b")), NEWS)
    signature_defaults.check(ClassifyOptions(labels=("a", "x")), None)


def spec(kind: str = "finetune", **fields: Any) -> AnyTraining:
    origin = {"model": "m"} if kind == "evaluate" else {"model": "m", "base": "b@1"}
    return training({"kind": kind, "corpus": {"file": "file-1"}, **origin, **fields})


def facts(
    plain: ModelFacts, *, chats: bool = True, signature: Signature | None = None
) -> ModelFacts:
    return replace(plain, chat_template="abc" if chats else None, signature=signature)


def read(
    found: ModelFacts | None, *forms: RowForm, kind: str = "finetune", **fields: Any
) -> Signature:
    """How a job's rows are read, its splits of these forms."""
    asked = spec(kind, **fields)
    begun = signature_defaults.of_training(asked, found)
    return signature_defaults.with_rows(begun, asked, dict(zip(Split, forms, strict=False)))


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
def test_training_goes_through_the_template_where_there_is_one(
    *,
    plain: ModelFacts,
    chats: bool,
    known: Signature | None,
    form: RowForm,
    chat: bool | None,
    expected: bool,
) -> None:
    found = read(facts(plain, chats=chats, signature=known), form, task="generate", chat=chat)
    assert (found.chat, found.rows) == (expected, form)
    assert found.system == (CHAT.system if known is CHAT and expected else None)


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
def test_rows_that_cannot_be_read_as_asked_are_refused(
    *, plain: ModelFacts, fields: dict[str, Any], chats: bool, forms: list[RowForm], code: str
) -> None:
    with pytest.raises(JobFailure) as refusal:
        read(facts(plain, chats=chats), *forms, task="generate", **fields)
    assert refusal.value.code == code
    assert isinstance(refusal.value, CorpusFailure | ModelFailure)


@pytest.mark.parametrize("signature", [NEWS, TAGS, PLAIN, CHAT, SHORT])
def test_an_evaluation_reads_as_the_model_was_trained(
    plain: ModelFacts, signature: Signature
) -> None:
    trained = signature.model_copy(update={"max_tokens": 32})
    found = read(facts(plain, signature=trained), PAIR, kind="evaluate")
    assert found == trained.model_copy(update={"labels": ()})
    assert signature_defaults.differences(found, trained) == ()


def test_an_evaluation_says_what_it_has_otherwise(plain: ModelFacts) -> None:
    trained = CHAT.model_copy(update={"max_tokens": 32})
    known = facts(plain, signature=trained)
    found = read(known, PAIR, kind="evaluate", chat=False, max_tokens=16)
    names = [sentence.split()[0] for sentence in signature_defaults.differences(found, trained)]
    assert names == ["chat", "system", "max_tokens"]


def test_an_evaluation_of_a_chat_model_on_plain_text_says_so(plain: ModelFacts) -> None:
    found = read(facts(plain, signature=CHAT), TEXT, kind="evaluate")
    [sentence] = signature_defaults.differences(found, CHAT)
    assert "plain text" in sentence


def test_an_evaluation_for_another_task_is_refused(plain: ModelFacts) -> None:
    with pytest.raises(ModelFailure, match="trained to classify") as refusal:
        read(facts(plain, signature=NEWS), PAIR, kind="evaluate", task="generate")
    assert refusal.value.code == "model_other_task"


def test_a_model_without_a_signature_is_evaluated_as_its_files_say(plain: ModelFacts) -> None:
    several = replace(plain, problem_type=inspection.MULTI_LABEL)
    assert read(several, PAIR, kind="evaluate").multi_label
    assert not read(plain, PAIR, kind="evaluate").multi_label
    assert read(facts(plain), PAIR, kind="evaluate", task="generate").chat
    assert not read(facts(plain), TEXT, kind="evaluate", task="generate").chat


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
def test_a_signature_is_said_in_words(signature: Signature, words: str) -> None:
    assert signature.words == words


def test_a_file_that_is_no_signature_is_a_fault_of_the_model(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    (folder / "nightshift_signature.json").write_text('{"task": "sing"}')
    with pytest.raises(ModelFailure, match="no signature"):
        inspection.inspect(folder)
