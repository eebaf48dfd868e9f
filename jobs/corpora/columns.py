"""Which columns hold the text and what stands beside it; failures name the columns there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from jobs.corpora import messages
from jobs.corpora.targets import Target, Targets
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus, PairCorpus, PromptCorpus

USUAL = ("text", "content", "sentence", "body", "document", "title")
_LABELS = ("label", "labels")
_WRITTEN = ("target", "completion", "summary", "translation")
USUAL_TARGETS = {
    Targets.LABEL: _LABELS + _WRITTEN,
    Targets.LABELS: _LABELS + _WRITTEN,
    Targets.TEXT: _WRITTEN + _LABELS,
    Targets.COMPLETION: _WRITTEN,  # a corpus of texts may well have labels that nobody asked for
    Targets.PAIR: (),  # never guessed
    Targets.SETTINGS: (),
}
PARAMS = {Targets.PAIR: "pair_column", Targets.SETTINGS: "settings_column"}
_LISTED = 30


class Chosen(NamedTuple):
    """The columns to read; without a target the rows are plain text."""

    text: str
    target: Target | None


def choose(
    found: Sequence[str], corpus: Corpus, *, strings: Sequence[str], targets: Targets | None
) -> Chosen:
    """The columns of a corpus whose rows have targets of this kind, or none.

    The target is the column given, else the first usual one, else the only one beside text and ids;
    the last not for completions. Raises ``column_missing``.
    """
    if targets is None:
        return Chosen(choose_text(found, corpus, strings=strings), None)
    talks = messages_column(found, corpus, targets)
    if talks is not None:
        return Chosen(talks, Target(talks, Targets.MESSAGES))
    target = _named_target(found, corpus, targets)
    rest = [name for name in found if name != target]
    strings = [name for name in strings if name != target]
    text = choose_text(rest, corpus, strings=strings)
    if target is None and targets is not Targets.COMPLETION:
        target = _only_other(found, corpus, text=text)
    return Chosen(text, None if target is None else Target(target, targets))


def messages_column(found: Sequence[str], corpus: Corpus, targets: Targets | None) -> str | None:
    """The column of conversations, of a training corpus for the task generate that has one."""
    if not isinstance(corpus, LabelledCorpus):
        return None
    if corpus.messages_column is not None and targets is not Targets.COMPLETION:
        raise missing("messages_column is for the task generate: leave it out")
    if corpus.messages_column is not None:
        return require(corpus.messages_column, found, param="messages_column")
    named = corpus.text_column or corpus.target_column
    is_there = messages.COLUMN in found and targets is Targets.COMPLETION
    return messages.COLUMN if is_there and not named else None


def beside(corpus: Corpus) -> Targets | None:
    """What the spec of a bulk job's corpus names beside the texts."""
    if given_target(corpus) is None:
        return None
    match corpus:
        case PairCorpus():
            return Targets.PAIR
        case PromptCorpus():
            return Targets.SETTINGS
    return None


def given_target(corpus: Corpus) -> str | None:
    """The column beside the texts that the corpus's spec names."""
    match corpus:
        case LabelledCorpus():
            return corpus.target_column
        case PairCorpus():
            return corpus.pair_column
        case PromptCorpus():
            return corpus.settings_column
    return None


def _named_target(found: Sequence[str], corpus: Corpus, targets: Targets) -> str | None:
    given = given_target(corpus)
    if given is not None and given == corpus.text_column:
        raise missing(f"the text and the {_word(targets)} must be two columns, not both {given!r}")
    if given is not None:
        return require(given, found, param=PARAMS.get(targets, "target_column"))
    others = (corpus.text_column, corpus.id_column)
    by_lower = {name.lower(): name for name in reversed(found) if name not in others}
    return next((by_lower[usual] for usual in USUAL_TARGETS[targets] if usual in by_lower), None)


def _word(targets: Targets) -> str:
    return targets.value if targets in PARAMS else "target"


def _only_other(found: Sequence[str], corpus: Corpus, *, text: str) -> str:
    others = list(dict.fromkeys(name for name in found if name not in (text, corpus.id_column)))
    if len(others) == 1:
        return others[0]
    raise missing(
        "which column holds the target (the label, or the text to be written) is not clear; "
        f"pass target_column; {listed(found)}"
    )


def choose_text(found: Sequence[str], corpus: Corpus, *, strings: Sequence[str]) -> str:
    """The column given, else the first usual one, else the only one of text beside the ids.

    ``strings`` are those columns of ``found`` that hold text. Raises ``column_missing``.
    """
    if corpus.text_column is not None:
        return require(corpus.text_column, found, param="text_column")
    by_lower = {name.lower(): name for name in reversed(found) if name != corpus.id_column}
    for usual in USUAL:
        if usual in by_lower:
            return by_lower[usual]
    candidates = [name for name in strings if name != corpus.id_column]
    if len(candidates) == 1:
        return candidates[0]
    raise missing(f"which column holds the text is not clear; pass text_column; {listed(found)}")


def require(name: str, found: Collection[str], *, param: str) -> str:
    """The name, which must be among the columns. Raises ``column_missing``."""
    if name not in found:
        raise missing(f"there is no column {name!r}; pass {param} as one of them; {listed(found)}")
    return name


def missing(message: str) -> CorpusFailure:
    """A failure with code ``column_missing``."""
    return CorpusFailure(message, code="column_missing")


def listed(found: Collection[str]) -> str:
    """The columns in words, the first of very many."""
    names = [repr(name[:100]) for name in list(found)[:_LISTED]]
    if len(found) > _LISTED:
        names.append(f"and {len(found) - _LISTED:,} more")
    return f"columns found: {', '.join(names) or 'none'}"
