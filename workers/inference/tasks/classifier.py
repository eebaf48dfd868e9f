"""Classification: the labels of each text.

Every answer that hangs on a near-tie is measured once more, alone (see ``decide``).
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

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from jobs.models.inspection import ModelFacts
from jobs.results.schemas import RowCode
from jobs.settings import Settings
from workers.inference import model_loader, row_isolation
from workers.inference.batching.batcher import Fill
from workers.inference.batching.chunk_pass import Reads, Sweep
from workers.inference.batching.collator import Padder
from workers.inference.batching.forward import NOT_FINITE, Beat, Meter, Row, RowError
from workers.inference.batching.tokenization import Item, PairReader, Reader, Reading, Window
from workers.inference.heads import label_texts, nearest_label, nli, sequence_head
from workers.inference.heads.label_decision import TIE, Activation, Rule, Verdicts, judge
from workers.inference.heads.nearest_label import Nearest
from workers.inference.heads.nli import Entailing
from workers.inference.heads.sequence_head import Head
from workers.inference.probes import forward_probe, preflight
from workers.inference.probes.batch_sharing import Verdict
from workers.inference.tasks.explainer import Attribution, Explainer

CHECKED = 100
"""With int8 every hundredth text of a chunk, from the first on, is computed in float32 as well."""

NOISE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far batching may move a number, relative to the row's largest: well above what is seen."""


DOUBT = {Activation.COSINE: 6e-3, Activation.SIGMOID: 6e-2, Activation.SOFTMAX: 6e-2}
"""Answers of int8 that hang on less are left to float32; relative to the row's largest number."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A row's labels, best first. None at all is an answer: no label reached the threshold."""

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    tokens: int  # that the model read, special ones included
    truncated: bool  # the text went on after them
    explanation: tuple[Attribution, ...] | None = None  # of rows that were chosen for it
    agrees: bool | None = None  # of int8: float32 has the same labels; None: nobody looked
    unknown: int = 0  # tokens of those that the tokenizer does not know
    near_tie: bool = False  # rounding could have changed the labels: they were measured alone

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.results.schemas.CLASSIFY_SCHEMA``, with an explanation if there is one."""
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

    ``numbers`` is how many the model says of a window: one for each label, or one, where a window
    is of one label. Some texts of every chunk are given to an ``exact`` one too, if there is one.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        labels: Sequence[str],
        reader: Reads,
        rule: Rule,
        numbers: int,
        digest: str,
        sharing: Verdict,
        exact: Classifier | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.digest = digest
        self.sharing = sharing
        self._meter = meter
        self._labels = tuple(labels)
        self._sweep = Sweep(meter, reader=reader, numbers=numbers)
        self._rule = rule
        self._exact = exact
        self._explainer = explainer
        self._tally = row_isolation.Tally("the model, when it is explained,")

    def answer(self, texts: Mapping[int, Item], *, beat: Beat) -> dict[int, Prediction | RowError]:
        """``classify`` for rows by their number; those that were chosen are explained."""
        answers = dict(zip(texts, self.classify(list(texts.values()), beat=beat), strict=True))
        if self._explainer is not None:
            answers |= self._explained(self._explainer, answers, texts=texts, beat=beat)
        return answers

    def _explained(
        self,
        explainer: Explainer,
        answers: Mapping[int, Prediction | RowError],
        *,
        texts: Mapping[int, Item],
        beat: Beat,
    ) -> Iterator[tuple[int, Prediction | RowError]]:
        """Rows that are to be explained, and are; equal texts are explained once."""
        done: dict[str, tuple[Attribution, ...] | RowError | None] = {}
        for row, answer in answers.items():
            if isinstance(answer, RowError) or not answer.labels:
                continue
            if explainer.chooses(row, score=answer.scores[0]):
                text = texts[row]
                assert isinstance(text, str)
                if text not in done:
                    label = self._labels.index(answer.labels[0])
                    done[text] = self._explanation(explainer, text, label=label)
                    beat()
                yield row, _with(answer, done[text])

    def _explanation(
        self, explainer: Explainer, text: str, *, label: int
    ) -> tuple[Attribution, ...] | RowError | None:
        try:
            found = explainer.explain(text, label=label)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(error)))
        self._tally.answered(1)
        return found

    def classify(self, texts: Sequence[Item], *, beat: Beat) -> list[Prediction | RowError]:
        """One answer per text, or per pair of texts, in order.

        ``beat`` is called after every batch; what it raises ends the work at once and is raised.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        rows = self._sweep.rows(list(places), beat=beat)
        answers = self._judged(rows, beat=beat)
        if self._exact is not None:
            doubtful = self._doubtful(rows, beat=beat)
            chosen = sorted({*range(0, len(rows), CHECKED), *doubtful})
            distinct = list(places)
            exact = self._exact.classify([distinct[place] for place in chosen], beat=beat)
            for place, theirs in zip(chosen, exact, strict=True):
                ours = theirs if place in doubtful else answers[place]
                answers[place] = ours if place % CHECKED else _compared(ours, theirs)
        return [answers[places[text]] for text in texts]

    def _doubtful(self, rows: list[Row], *, beat: Beat) -> set[int]:
        """Places of rows whose best label, or labels above a threshold, int8 cannot tell for sure.

        Those at the edge of doubt are measured alone, so that the batch does not decide.
        """
        rule = replace(self._rule, all_scores=False, top_k=1)
        doubt = DOUBT[rule.activation]
        sound = [place for place, row in enumerate(rows) if row.error is None]
        wide = self._unsettled(rows, sound, rule=replace(rule, noise=doubt + rule.noise))
        narrow = self._unsettled(rows, wide, rule=replace(rule, noise=doubt - rule.noise))
        edge = sorted(set(wide) - set(narrow))
        for place in edge:
            self._meter.measure_alone(rows[place], beat=beat)
        return {*narrow, *self._unsettled(rows, edge, rule=replace(rule, noise=doubt))}

    def _unsettled(self, rows: list[Row], places: list[int], *, rule: Rule) -> list[int]:
        if not places:
            return []
        verdicts = self._verdicts([rows[place] for place in places], rule=rule)
        return [
            place for place, settled in zip(places, verdicts.settled, strict=True) if not settled
        ]

    def _judged(self, rows: list[Row], *, beat: Beat) -> list[Prediction | RowError]:
        """Every row's answer; those that are not settled are measured alone first."""
        first = self._decided(rows, final=False)
        unsettled = [row for row, answer in zip(rows, first, strict=True) if answer is None]
        for row in unsettled:
            self._meter.measure_alone(row, beat=beat)
        again = iter(self._decided(unsettled, final=True))
        answers = (answer or next(again) for answer in first)
        return [answer for answer in answers if answer is not None]

    def _decided(self, rows: list[Row], *, final: bool) -> list[Prediction | RowError | None]:
        sound = [row for row in rows if row.error is None]
        predictions = iter(self._predictions(sound, final=final) if sound else ())
        return [row.error or next(predictions) for row in rows]

    def _predictions(
        self, rows: list[Row], *, final: bool
    ) -> Iterator[Prediction | RowError | None]:
        """Each row's prediction; ``None`` for one that is not settled, unless this is final."""
        verdicts = self._verdicts(rows, rule=self._rule)
        for place, row in enumerate(rows):
            if verdicts.settled[place] or (final and verdicts.finite[place]):
                yield self._prediction(verdicts, place=place, reading=row.reading, near_tie=final)
            else:
                yield NOT_FINITE if final else None

    def _verdicts(self, rows: list[Row], *, rule: Rule) -> Verdicts:
        # A window has a line of numbers; or, where it is of one label, a place in the row's line.
        lines = [row.raw.reshape(-1, len(self._labels)) for row in rows]
        starts = [0, *itertools.accumulate(len(each) for each in lines[:-1])]
        return judge(np.concatenate(lines), starts=starts, rule=rule)

    def _prediction(
        self, verdicts: Verdicts, *, place: int, reading: Reading, near_tie: bool
    ) -> Prediction:
        order = verdicts.order[place, : verdicts.shown[place]]
        return Prediction(
            labels=tuple(self._labels[index] for index in order),
            scores=tuple(verdicts.scores[place, order].tolist()),
            tokens=reading.tokens,
            truncated=reading.truncated,
            unknown=reading.unknown,
            near_tie=near_tie,
        )


def _with(
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
    reader = _reader(tokenizer, options, facts=facts)
    windows = _label_windows(options.labels or (), reader, tokenizer=tokenizer)
    family = _family(folder, options, facts=facts, settings=settings)
    preflight.check_vocabulary(family.model, tokenizer)
    padder = Padder(family.model, tokenizer=tokenizer)
    exact = _exact(folder, options, facts=facts, settings=settings) if options.int8 else None
    sharing = forward_probe.share(
        family.encoder if isinstance(family, Nearest) else family,
        padder=padder,
        reader=reader,
        tokenizer=tokenizer,
        settings=settings,
        digest=facts.digest,
        kind=_how(family, options),
        known=None if exact is None else exact.sharing,  # int8 rounds more than the probe allows
    )
    if isinstance(family, Nearest):
        points = family.place_labels([padder.inputs([each]) for each in windows])
        tie = NOISE[family.model.dtype] * TIE
        label_texts.check_points(family.labels, points, tie=tie)
    numbers = 1 if isinstance(family, Entailing) else len(family.labels)
    preflight.check_measuring(
        family, tokenizer=tokenizer, reader=reader, padder=padder, numbers=numbers
    )
    budget = model_loader.calibrated(
        settings,
        model=family.model,
        digest=facts.digest,
        kind=_how(family, options),
    )
    explainer = None
    if options.explain is not None:
        assert isinstance(reader, Reader)
        assert not isinstance(family, Entailing)
        explainer = Explainer(
            family,
            reader=reader,
            padder=padder,
            asked=options.explain,
            # A row that must be alone is so beside the steps of its own way, too.
            budget=0
            if sharing.fill is Fill.ALONE
            else model_loader.budget(settings, device=family.model.device),
        )
    return Classifier(
        Meter(family, padder=padder, budget=budget),
        labels=family.labels,
        reader=reader,
        rule=_rule(facts, options, family=family, packed=padder.fill is Fill.PACK),
        numbers=numbers,
        digest=facts.digest,
        sharing=sharing,
        exact=exact,
        explainer=explainer,
    )


def _reader(
    tokenizer: PreTrainedTokenizerBase, options: ClassifyOptions, *, facts: ModelFacts
) -> Reader | PairReader:
    if options.hypothesis is None:
        return Reader(tokenizer, max_tokens=facts.max_tokens, options=options)
    hypotheses = [options.hypothesis.replace("{}", label) for label in options.labels or ()]
    return PairReader(
        tokenizer, max_tokens=facts.max_tokens, options=options, hypotheses=hypotheses
    )


def _family(
    folder: Path, options: ClassifyOptions, *, facts: ModelFacts, settings: Settings
) -> Head | Nearest | Entailing:
    if options.labels is None:
        return sequence_head.load(folder, facts=facts, options=options, settings=settings)
    if options.hypothesis is None:
        return nearest_label.load(folder, facts=facts, options=options, settings=settings)
    return nli.load(folder, facts=facts, options=options, settings=settings)


def _exact(
    folder: Path, options: ClassifyOptions, *, facts: ModelFacts, settings: Settings
) -> Classifier:
    whole = options.model_copy(update={"int8": False})
    # A few rows teach the autotuner nothing.
    budget = model_loader.budget(settings, device=model_loader.device())
    fixed = settings.model_copy(update={"batch_tokens": budget})
    return load(folder, whole, facts=facts, settings=fixed)


def _how(family: Head | Nearest | Entailing, options: ClassifyOptions) -> str:
    """What makes the same model faster or slower."""
    ways = [type(family).__name__]
    ways += ["int8"] if options.int8 else []
    ways += ["with gradients"] if options.explain is not None else []
    return ", ".join(ways)


def _label_windows(
    labels: Sequence[str], reader: Reader | PairReader, *, tokenizer: PreTrainedTokenizerBase
) -> list[Window]:
    """What is read of each label by itself; nothing, where it stands in a hypothesis.

    Raises ``ModelFailure``: label_without_tokens, labels_indistinguishable.
    """
    if isinstance(reader, PairReader):
        label_texts.check_tokens(labels, reader.hypotheses, tokenizer=tokenizer)
        return []
    windows = []
    for label, read in zip(labels, reader.read(labels), strict=True):
        if not read.windows:
            raise ModelFailure(
                f"the model's tokenizer makes no token of the label {label!r}",
                code="label_without_tokens",
            )
        windows.append(read.windows[0])
    label_texts.check_tokens(labels, [each.ids for each in windows], tokenizer=tokenizer)
    return windows


def _rule(
    facts: ModelFacts,
    options: ClassifyOptions,
    *,
    family: Head | Nearest | Entailing,
    packed: bool,
) -> Rule:
    noise = NOISE[family.model.dtype]
    if options.int8 and not packed:
        # A last bit that padding moved makes another integer here and there.
        noise = DOUBT[family.activation] / 4
    return Rule(
        activation=family.activation,
        multi_label=sequence_head.is_multi_label(facts, options),
        all_scores=options.all_scores,
        top_k=options.top_k,
        threshold=options.threshold,
        noise=noise,
    )
