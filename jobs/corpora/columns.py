"""Which columns hold the text and its target; failures list the columns of the corpus."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from jobs.corpora import message_lists
from jobs.corpora.targets import Target, TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus, PairCorpus, PromptCorpus

USUAL_TEXT_COLUMNS = ("text", "content", "sentence", "body", "document", "title")
_LABELS = ("label", "labels")
_TEXTS = ("target", "completion", "summary", "translation")
USUAL_TARGET_COLUMNS = {
    TargetKind.LABEL: _LABELS + _TEXTS,
    TargetKind.LABELS: _LABELS + _TEXTS,
    TargetKind.TEXT: _TEXTS + _LABELS,
    TargetKind.COMPLETION: _TEXTS,  # a corpus of texts may have labels that the job does not use
    TargetKind.PAIR: (),  # never guessed
    TargetKind.SETTINGS: (),
}
PARAMS = {TargetKind.PAIR: "pair_column", TargetKind.SETTINGS: "settings_column"}
_MAX_LISTED = 30


class ChosenColumns(NamedTuple):
    """The columns to read; ``target`` is ``None`` for rows of plain text."""

    text: str
    target: Target | None


def choose(
    names: Sequence[str], corpus: Corpus, *, strings: Sequence[str], targets: TargetKind | None
) -> ChosenColumns:
    """The columns of a corpus whose rows have targets of this kind, or none.

    The target is the given column, else the first usual one, else (but not for completions) the
    only one that is neither text nor id. Raises ``column_missing``.
    """
    if targets is None:
        return ChosenColumns(choose_text(names, corpus, strings=strings), None)
    conversations = messages_column(names, corpus, targets)
    if conversations is not None:
        return ChosenColumns(conversations, Target(conversations, TargetKind.MESSAGES))
    target = _named_target(names, corpus, targets)
    rest = [name for name in names if name != target]
    strings = [name for name in strings if name != target]
    text = choose_text(rest, corpus, strings=strings)
    if target is None and targets is not TargetKind.COMPLETION:
        target = _only_other(names, corpus, text=text)
    return ChosenColumns(text, None if target is None else Target(target, targets))


def messages_column(names: Sequence[str], corpus: Corpus, targets: TargetKind | None) -> str | None:
    """The column of conversations, if this is a training corpus for generate that has one."""
    if not isinstance(corpus, LabelledCorpus):
        return None
    if corpus.messages_column is not None and targets is not TargetKind.COMPLETION:
        raise missing("messages_column is for the task generate: leave it out")
    if corpus.messages_column is not None:
        return require(corpus.messages_column, names, param="messages_column")
    has_named = corpus.text_column or corpus.target_column
    has_messages = message_lists.DEFAULT_COLUMN in names and targets is TargetKind.COMPLETION
    return message_lists.DEFAULT_COLUMN if has_messages and not has_named else None


def named_target_kind(corpus: Corpus) -> TargetKind | None:
    """The kind of the second column that a bulk job's corpus names."""
    if given_target(corpus) is None:
        return None
    match corpus:
        case PairCorpus():
            return TargetKind.PAIR
        case PromptCorpus():
            return TargetKind.SETTINGS
    return None


def given_target(corpus: Corpus) -> str | None:
    """The target column that the corpus's spec names."""
    match corpus:
        case LabelledCorpus():
            return corpus.target_column
        case PairCorpus():
            return corpus.pair_column
        case PromptCorpus():
            return corpus.settings_column
    return None


def _named_target(names: Sequence[str], corpus: Corpus, targets: TargetKind) -> str | None:
    given = given_target(corpus)
    if given is not None and given == corpus.text_column:
        raise missing(f"the text and the {_word(targets)} must be two columns, not both {given!r}")
    if given is not None:
        return require(given, names, param=PARAMS.get(targets, "target_column"))
    others = (corpus.text_column, corpus.id_column)
    by_lower = {name.lower(): name for name in reversed(names) if name not in others}
    return next(
        (by_lower[usual] for usual in USUAL_TARGET_COLUMNS[targets] if usual in by_lower), None
    )


def _word(targets: TargetKind) -> str:
    return targets.value if targets in PARAMS else "target"


def _only_other(names: Sequence[str], corpus: Corpus, *, text: str) -> str:
    others = list(dict.fromkeys(name for name in names if name not in (text, corpus.id_column)))
    if len(others) == 1:
        return others[0]
    raise missing(
        "it is not clear which column holds the target (the label, or the text to generate); "
        f"pass target_column; {listed(names)}"
    )


def choose_text(names: Sequence[str], corpus: Corpus, *, strings: Sequence[str]) -> str:
    """The given column, else the first usual one, else the only one of text beside the ids.

    ``strings`` are those columns of ``names`` that hold text. Raises ``column_missing``.
    """
    if corpus.text_column is not None:
        return require(corpus.text_column, names, param="text_column")
    by_lower = {name.lower(): name for name in reversed(names) if name != corpus.id_column}
    for usual in USUAL_TEXT_COLUMNS:
        if usual in by_lower:
            return by_lower[usual]
    candidates = [name for name in strings if name != corpus.id_column]
    if len(candidates) == 1:
        return candidates[0]
    raise missing(f"it is not clear which column holds the text; pass text_column; {listed(names)}")


def require(name: str, names: Collection[str], *, param: str) -> str:
    """The name, which must be one of the columns. Raises ``column_missing``."""
    if name not in names:
        raise missing(f"there is no column {name!r}; pass {param} as one of them; {listed(names)}")
    return name


def missing(message: str) -> CorpusFailure:
    return CorpusFailure(message, code="column_missing")


def listed(names: Collection[str]) -> str:
    """The columns in words, at most the first 30."""
    shown = [repr(name[:100]) for name in list(names)[:_MAX_LISTED]]
    if len(names) > _MAX_LISTED:
        shown.append(f"and {len(names) - _MAX_LISTED:,} more")
    return f"columns found: {', '.join(shown) or 'none'}"
