"""Classification: the labels of each text.

Keeps promise P6: a row whose labels depend on a near tie is computed again, alone (decision 0006,
``label_decision``). With int8, doubtful rows are computed in float32 (decision 0026).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from jobs.kinds import ClassifyOptions, Explain
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.chunk_runner import ChunkRunner, TextTokenizer
from workers.inference.batching.collator import Collator
from workers.inference.batching.forward import NOT_FINITE, ModelRunner, Row, RowError
from workers.inference.batching.tokenization import (
    HypothesisTokenizer,
    RowText,
    TokenizedText,
    TokenWindow,
    WindowTokenizer,
)
from workers.inference.heads import label_texts, nearest_label, nli, sequence_head
from workers.inference.heads.label_decision import (
    TIE,
    Activation,
    LabelDecisions,
    LabelRule,
    decide,
)
from workers.inference.heads.nearest_label import NearestLabelHead
from workers.inference.heads.nli import EntailmentHead
from workers.inference.heads.sequence_head import SequenceHead
from workers.inference.probes import forward_probe, preflight
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.tasks.explainer import Attribution, Explainer

FLOAT32_CHECK_EVERY = 100
"""With int8 every hundredth text of a chunk, from the first on, is computed in float32 as well."""

ROUNDING_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far batching may change an output, relative to the row's largest: well above what is
observed."""

INT8_TOLERANCE = {Activation.COSINE: 6e-3, Activation.SIGMOID: 6e-2, Activation.SOFTMAX: 6e-2}
"""With int8, rows whose labels depend on a smaller difference than this are computed in float32; it
is relative to the row's largest output."""

ClassifierHead = SequenceHead | NearestLabelHead | EntailmentHead

CACHE_NAMES = {
    SequenceHead: "Head",
    NearestLabelHead: "Nearest",
    EntailmentHead: "Entailing",
}
"""Names of the heads in keys of the autotune cache."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A row's labels, best first; empty where no label reached the threshold."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    tokens: int  # that the model read, special ones included
    truncated: bool  # the text was longer
    explanation: tuple[Attribution, ...] | None = None  # of rows that the options select
    agrees: bool | None = None  # with int8: float32 has the same labels; None: not compared
    unknown: int = 0  # unknown tokens among those
    near_tie: bool = False  # rounding could have changed the labels: the row was computed alone

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.kinds.classify``, with an explanation if there is one."""
        why = self.explanation
        explanation = {} if why is None else {"explanation": [each.fields() for each in why]}
        return explanation | {
            "label": self.labels[0] if self.labels else None,
            "score": self.scores[0] if self.scores else None,
            "labels": list(self.labels),
            "scores": list(self.scores),
            "tokens": self.tokens,
            "truncated": self.truncated,
        }


class Classifier:
    """A loaded model that classifies. For one thread at a time.

    ``width`` is the number of outputs for a window: one for each label, or one, where a window
    pairs the text with one label. Some texts of every chunk are computed by ``exact`` as well.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        labels: Sequence[str],
        window_tokenizer: TextTokenizer,
        rule: LabelRule,
        width: int,
        digest: str,
        batch_policy: BatchPolicy,
        exact: Classifier | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.digest = digest
        self.batch_policy = batch_policy
        self._runner = runner
        self._labels = tuple(labels)
        self._chunk_runner = ChunkRunner(runner, tokenizer=window_tokenizer, width=width)
        self._rule = rule
        self._exact = exact
        self._explainer = explainer

    def answer(
        self, texts: Mapping[int, RowText], *, beat: Beat
    ) -> dict[int, Prediction | RowError]:
        """``classify`` for rows by their number; those that the options select are explained."""
        answers = dict(zip(texts, self.classify(list(texts.values()), beat=beat), strict=True))
        if self._explainer is not None:
            answers |= self._explained(self._explainer, answers, texts=texts, beat=beat)
        return answers

    def _explained(
        self,
        explainer: Explainer,
        answers: Mapping[int, Prediction | RowError],
        *,
        texts: Mapping[int, RowText],
        beat: Beat,
    ) -> Iterator[tuple[int, Prediction | RowError]]:
        """The selected rows with their explanations; equal texts are explained once."""
        done: dict[str, tuple[Attribution, ...] | RowError | None] = {}
        for row, answer in answers.items():
            if isinstance(answer, RowError) or not answer.labels:
                continue
            if explainer.selects(row, score=answer.scores[0]):
                text = texts[row]
                assert isinstance(text, str)
                if text not in done:
                    label = self._labels.index(answer.labels[0])
                    done[text] = explainer.try_explain(text, label=label)
                    beat()
                yield row, _with_explanation(answer, done[text])

    def classify(self, texts: Sequence[RowText], *, beat: Beat) -> list[Prediction | RowError]:
        """One answer per text, or per pair of texts, in order.

        ``beat`` is called after every batch; an exception from it ends the work and is raised.
        """
        indices = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        rows = self._chunk_runner.rows(list(indices), beat=beat)
        answers = self._answers(rows, beat=beat)
        if self._exact is not None:
            doubtful = self._doubtful(rows, beat=beat)
            chosen = sorted({*range(0, len(rows), FLOAT32_CHECK_EVERY), *doubtful})
            distinct = list(indices)
            exact = self._exact.classify([distinct[index] for index in chosen], beat=beat)
            for index, theirs in zip(chosen, exact, strict=True):
                ours = theirs if index in doubtful else answers[index]
                answers[index] = ours if index % FLOAT32_CHECK_EVERY else _compared(ours, theirs)
        return [answers[indices[text]] for text in texts]

    def _doubtful(self, rows: list[Row], *, beat: Beat) -> set[int]:
        """Indices of rows whose best label, or labels above a threshold, int8 may get wrong.

        Those at the edge of doubt are computed alone, so that their batch does not decide.
        """
        rule = replace(self._rule, all_scores=False, top_k=1)
        doubt = INT8_TOLERANCE[rule.activation]
        sound = [index for index, row in enumerate(rows) if row.error is None]
        wide = self._unsettled(rows, sound, rule=replace(rule, tolerance=doubt + rule.tolerance))
        narrow = self._unsettled(rows, wide, rule=replace(rule, tolerance=doubt - rule.tolerance))
        edge = sorted(set(wide) - set(narrow))
        for index in edge:
            self._runner.run_alone(rows[index], beat=beat)
        return {*narrow, *self._unsettled(rows, edge, rule=replace(rule, tolerance=doubt))}

    def _unsettled(self, rows: list[Row], indices: list[int], *, rule: LabelRule) -> list[int]:
        if not indices:
            return []
        decisions = self._decide([rows[index] for index in indices], rule=rule)
        return [
            index for index, settled in zip(indices, decisions.settled, strict=True) if not settled
        ]

    def _answers(self, rows: list[Row], *, beat: Beat) -> list[Prediction | RowError]:
        """Every row's answer; rows that are not settled are computed alone first."""
        first = self._settled_answers(rows, final=False)
        unsettled = [row for row, answer in zip(rows, first, strict=True) if answer is None]
        for row in unsettled:
            self._runner.run_alone(row, beat=beat)
        again = iter(self._settled_answers(unsettled, final=True))
        answers = (answer or next(again) for answer in first)
        return [answer for answer in answers if answer is not None]

    def _settled_answers(
        self, rows: list[Row], *, final: bool
    ) -> list[Prediction | RowError | None]:
        sound = [row for row in rows if row.error is None]
        predictions = iter(self._predictions(sound, final=final) if sound else ())
        return [row.error or next(predictions) for row in rows]

    def _predictions(
        self, rows: list[Row], *, final: bool
    ) -> Iterator[Prediction | RowError | None]:
        """Each row's prediction; ``None`` for one that is not settled, unless this is final."""
        decisions = self._decide(rows, rule=self._rule)
        for index, row in enumerate(rows):
            if decisions.settled[index] or (final and decisions.finite[index]):
                yield self._prediction(
                    decisions, index=index, tokenized=row.tokenized, near_tie=final
                )
            else:
                yield NOT_FINITE if final else None

    def _decide(self, rows: list[Row], *, rule: LabelRule) -> LabelDecisions:
        # A window has an output for each label; or, where it is paired with one label, one output.
        outputs = [row.outputs.reshape(-1, len(self._labels)) for row in rows]
        starts = [0, *itertools.accumulate(len(each) for each in outputs[:-1])]
        return decide(np.concatenate(outputs), starts=starts, rule=rule)

    def _prediction(
        self, decisions: LabelDecisions, *, index: int, tokenized: TokenizedText, near_tie: bool
    ) -> Prediction:
        order = decisions.order[index, : decisions.shown[index]]
        return Prediction(
            labels=tuple(self._labels[index] for index in order),
            scores=tuple(decisions.scores[index, order].tolist()),
            tokens=tokenized.tokens,
            truncated=tokenized.truncated,
            unknown=tokenized.unknown,
            near_tie=near_tie,
        )


def _with_explanation(
    answer: Prediction, explanation: tuple[Attribution, ...] | RowError | None
) -> Prediction | RowError:
    if isinstance(explanation, RowError):
        return explanation
    return replace(answer, explanation=explanation)


def _compared(answer: Prediction | RowError, exact: Prediction | RowError) -> Prediction | RowError:
    if isinstance(answer, RowError) or isinstance(exact, RowError):
        return answer
    return replace(answer, agrees=answer.labels == exact.labels)


def load(
    folder: Path, options: ClassifyOptions, *, facts: ModelFacts, settings: Settings
) -> Classifier:
    """The folder's classifier on this process's device. Raises ``ModelFailure``."""
    tokenizer = model_loader.tokenizer(folder)
    window_tokenizer = _window_tokenizer(tokenizer, options, facts=facts)
    windows = label_texts.windows(options.labels or (), window_tokenizer, tokenizer=tokenizer)
    head = _head(folder, options, facts=facts, settings=settings)
    preflight.check_vocabulary(head.model, tokenizer)
    collator = Collator(head.model, tokenizer=tokenizer)
    exact = _exact(folder, options, facts=facts, settings=settings) if options.int8 else None
    policy = forward_probe.apply_policy(
        head.encoder if isinstance(head, NearestLabelHead) else head,
        collator=collator,
        window_tokenizer=window_tokenizer,
        tokenizer=tokenizer,
        settings=settings,
        digest=facts.digest,
        variant=_cache_variant(head, options),
        known=exact.batch_policy if exact else None,  # int8 rounds more than the probe allows
    )
    if isinstance(head, NearestLabelHead):
        _embed_labels(head, windows, collator=collator)
    width = 1 if isinstance(head, EntailmentHead) else len(head.labels)
    preflight.check_forward(
        head,
        tokenizer=tokenizer,
        window_tokenizer=window_tokenizer,
        collator=collator,
        width=width,
    )
    budget = model_loader.calibrated(
        settings, model=head.model, digest=facts.digest, variant=_cache_variant(head, options)
    )
    explainer = None
    if options.explain is not None:
        # A row that needs a batch of its own needs one for each step of its explanation.
        single = policy.layout is BatchLayout.SINGLE
        tokens = 0 if single else model_loader.budget(settings, device=head.model.device)
        explainer = _explainer(head, window_tokenizer, collator, options.explain, budget=tokens)
    packed = collator.layout is BatchLayout.PACKED
    return Classifier(
        ModelRunner(head, collator=collator, budget=budget),
        labels=head.labels,
        window_tokenizer=window_tokenizer,
        rule=_rule(facts, options, head=head, packed=packed),
        width=width,
        digest=facts.digest,
        batch_policy=policy,
        exact=exact,
        explainer=explainer,
    )


def _window_tokenizer(
    tokenizer: PreTrainedTokenizerBase, options: ClassifyOptions, *, facts: ModelFacts
) -> WindowTokenizer | HypothesisTokenizer:
    if options.hypothesis is None:
        return WindowTokenizer(tokenizer, max_tokens=facts.max_tokens, options=options)
    hypotheses = [options.hypothesis.replace("{}", label) for label in options.labels or ()]
    return HypothesisTokenizer(
        tokenizer, max_tokens=facts.max_tokens, options=options, hypotheses=hypotheses
    )


def _head(
    folder: Path, options: ClassifyOptions, *, facts: ModelFacts, settings: Settings
) -> ClassifierHead:
    if options.labels is None:
        return sequence_head.load(folder, facts=facts, options=options, settings=settings)
    if options.hypothesis is None:
        return nearest_label.load(folder, facts=facts, options=options, settings=settings)
    return nli.load(folder, facts=facts, options=options, settings=settings)


def _exact(
    folder: Path, options: ClassifyOptions, *, facts: ModelFacts, settings: Settings
) -> Classifier:
    """The same classifier in float32."""
    float32 = options.model_copy(update={"int8": False})
    # It computes too few rows for a trial of batch sizes.
    budget = model_loader.budget(settings, device=model_loader.device())
    fixed = settings.model_copy(update={"batch_tokens": budget})
    return load(folder, float32, facts=facts, settings=fixed)


def _cache_variant(head: ClassifierHead, options: ClassifyOptions) -> str:
    """What makes the same model faster or slower, as a key of the autotune cache."""
    words = [CACHE_NAMES[type(head)]]
    words += ["int8"] if options.int8 else []
    words += ["with gradients"] if options.explain is not None else []
    return ", ".join(words)


def _embed_labels(
    head: NearestLabelHead, windows: Sequence[TokenWindow], *, collator: Collator
) -> None:
    """Embed the labels. Raises ``ModelFailure``: labels_indistinguishable."""
    embeddings = head.embed_labels([collator.collate([each]) for each in windows])
    tie = ROUNDING_TOLERANCE[head.model.dtype] * TIE
    label_texts.check_embeddings(head.labels, embeddings, tie=tie)


def _explainer(
    head: ClassifierHead,
    window_tokenizer: WindowTokenizer | HypothesisTokenizer,
    collator: Collator,
    options: Explain,
    *,
    budget: int,
) -> Explainer:
    assert isinstance(window_tokenizer, WindowTokenizer)
    assert not isinstance(head, EntailmentHead)
    return Explainer(
        head,
        window_tokenizer=window_tokenizer,
        collator=collator,
        options=options,
        budget=budget,
    )


def _rule(
    facts: ModelFacts, options: ClassifyOptions, *, head: ClassifierHead, packed: bool
) -> LabelRule:
    tolerance = ROUNDING_TOLERANCE[head.model.dtype]
    if options.int8 and not packed:
        # Where padding changes a last bit, some inputs round to another integer.
        tolerance = INT8_TOLERANCE[head.activation] / 4
    return LabelRule(
        activation=head.activation,
        multi_label=sequence_head.is_multi_label(facts, options),
        all_scores=options.all_scores,
        top_k=options.top_k,
        threshold=options.threshold,
        tolerance=tolerance,
    )
