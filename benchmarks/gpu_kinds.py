"""Every kind once on this process's device, against the library, one row at a time.

``python -m benchmarks.gpu_kinds``. Tiny random models of real architectures, in float32 and in the
dtype that the engine would choose by itself. In float32 labels, vectors and texts must be the
library's; in half precision labels must be where the library's two best scores are further apart
than its noise, vectors within it, and the share of equal texts is reported. Sampled texts and
explanations, which the library does not have, are compared with those of each row alone. Exits with
1 if anything differs.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from jobs.kinds import (
    ClassifyOptions,
    EmbedOptions,
    Explain,
    GenerateOptions,
    Options,
    PipelineOptions,
    Text2TextOptions,
)
from jobs.settings import Settings
from tests.support import tiny_models, tiny_pipelines, tiny_writers
from tests.workers.inference.builders import some_texts
from workers.inference import engine, model_loader

ROWS = 48
STEPS = 12
BOUND = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""The most that a score, or a vector as a share of its length, may differ from the library's."""

Answers = Mapping[int, Any]


@dataclass(frozen=True)
class Comparison:
    """The result of one check."""

    kind: str
    model: str
    dtype: str
    rows: int
    wrong: int  # rows whose answer differs by more than this dtype allows
    equal: float  # share of rows whose label or text is the same; of vectors: within the bound
    largest_difference: float | None  # of scores, or of vectors as a share of their length


Check = Callable[[torch.dtype], Comparison]


def main() -> None:
    device = model_loader.device()
    own = model_loader.dtype(ClassifyOptions(), device=device)
    print(f"device {device}, dtypes float32 and {_name(own)}", flush=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for dtype in dict.fromkeys((torch.float32, own)):
            for check in _checks(Path(folder) / _name(dtype)):
                comparison = check(dtype)
                wrong += comparison.wrong
                print(json.dumps(asdict(comparison)), flush=True)
    sys.exit(1 if wrong else 0)


def _checks(folder: Path) -> Iterator[Check]:
    families: tuple[tiny_models.Family, ...] = ("bert", "distilbert", "roberta", "gpt2")
    for family in families:
        model = tiny_models.tiny_classifier(folder / f"classify-{family}", family=family)
        yield partial(_classify, model, model_name=family)
    encoder = tiny_models.tiny_encoder(folder / "encoder")
    yield partial(_nearest, encoder)
    yield partial(_embed, encoder)
    judge = tiny_models.tiny_classifier(folder / "nli", labels=("contradiction", "entailment"))
    yield partial(_entailed, judge)
    yield partial(_explained, tiny_models.tiny_classifier(folder / "explained"))
    for name in ("llama", "gpt2"):
        model = tiny_writers.tiny_generator(folder / f"generate-{name}", family=name)
        yield partial(_generated, model, model_name=name)
        yield partial(_sampled, model, model_name=name)
    for name in ("t5", "bart"):
        model = tiny_writers.tiny_translator(folder / f"text2text-{name}", family=name)
        yield partial(_translated, model, model_name=name)
    yield partial(_entities, tiny_pipelines.entity_finder(folder / "entities"))
    yield partial(_images, tiny_pipelines.image_classifier(folder / "images"))


def _texts() -> dict[int, str]:
    return dict(enumerate(some_texts(ROWS, longest=12)))


def _engine(model: Path, options: Options) -> engine.Engine:
    return engine.load(model, options, settings=Settings(worker_threads=1, calibration_folder=""))


def _answers(model: Path, options: Options, rows: Mapping[int, Any]) -> Answers:
    answers = _engine(model, options).answer(rows, beat=lambda: None)
    errors = [each for each in answers.values() if isinstance(each, engine.RowError)]
    assert not errors, errors
    return answers


class _Reference:
    """The folder's model as transformers loads it, one row at a time."""

    def __init__(self, folder: Path, *, auto: Any, dtype: torch.dtype) -> None:
        tokenizers: Any = AutoTokenizer
        self.tokenizer = tokenizers.from_pretrained(folder)
        self.model = auto.from_pretrained(folder, dtype=dtype).to(model_loader.device()).eval()

    @torch.inference_mode()
    def called(self, *texts: str) -> Any:
        return self.model(**self._inputs(*texts))

    @torch.inference_mode()
    def written(self, text: str, *, decoder_alone: bool) -> str:
        inputs = self._inputs(text, window=tiny_writers.MAX_TOKENS)
        ids = self.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0]
        new = ids[inputs["input_ids"].shape[1] :] if decoder_alone else ids
        return str(self.tokenizer.decode(new, skip_special_tokens=True))

    def _inputs(self, *texts: str, window: int = tiny_models.MAX_TOKENS) -> Any:
        inputs = self.tokenizer(*texts, return_tensors="pt", truncation=True, max_length=window)
        return inputs.to(model_loader.device())


def _classify(model: Path, dtype: torch.dtype, *, model_name: str) -> Comparison:
    library = _Reference(model, auto=AutoModelForSequenceClassification, dtype=dtype)
    scores = {
        row: library.called(text).logits.float().softmax(dim=1)[0] for row, text in _texts().items()
    }
    options = ClassifyOptions(dtype=_name(dtype), all_scores=True)
    return _labelled("classify", model_name, _answers(model, options, _texts()), scores, dtype)


def _nearest(model: Path, dtype: torch.dtype) -> Comparison:
    library = _Reference(model, auto=AutoModel, dtype=dtype)
    points = torch.cat([_mean(library, label) for label in tiny_models.LABELS])
    scores = {row: (_mean(library, text) @ points.T)[0] for row, text in _texts().items()}
    options = ClassifyOptions(dtype=_name(dtype), all_scores=True, labels=tiny_models.LABELS)
    answers = _answers(model, options, _texts())
    return _labelled("classify by label texts", "bert", answers, scores, dtype)


def _entailed(model: Path, dtype: torch.dtype) -> Comparison:
    library = _Reference(model, auto=AutoModelForSequenceClassification, dtype=dtype)
    hypotheses = [f"this is {label}." for label in tiny_models.LABELS]
    scores = {
        row: torch.stack(
            [library.called(text, each).logits.float()[0, 1] for each in hypotheses]
        ).softmax(dim=0)
        for row, text in _texts().items()
    }
    options = ClassifyOptions(
        dtype=_name(dtype),
        all_scores=True,
        labels=tiny_models.LABELS,
        hypothesis="this is {}.",
    )
    return _labelled(
        "classify by entailment", "bert", _answers(model, options, _texts()), scores, dtype
    )


def _labelled(
    kind: str, model: str, answers: Answers, scores: Mapping[int, torch.Tensor], dtype: torch.dtype
) -> Comparison:
    """Labels and scores against the library's scores, in the order of ``tiny_models.LABELS``."""
    bound, wrong, equal, differences = BOUND[dtype], 0, 0, []
    for row, answer in answers.items():
        theirs = dict(zip(tiny_models.LABELS, scores[row].tolist(), strict=True))
        ours = dict(zip(answer.labels, answer.scores, strict=True))
        differences.append(max(abs(ours[label] - theirs[label]) for label in theirs))
        best, second = sorted(theirs.values(), reverse=True)[:2]
        same = answer.labels[0] == max(theirs, key=theirs.__getitem__)
        equal += same
        wrong += int(differences[-1] > bound or (not same and best - second > bound))
    return Comparison(
        kind, model, _name(dtype), len(answers), wrong, equal / len(answers), max(differences)
    )


def _mean(library: _Reference, text: str) -> torch.Tensor:
    states = library.called(text).last_hidden_state.float().mean(dim=1)
    return torch.nn.functional.normalize(states, dim=1)


def _embed(model: Path, dtype: torch.dtype) -> Comparison:
    library = _Reference(model, auto=AutoModel, dtype=dtype)
    options = EmbedOptions(dtype=_name(dtype), normalize=True)
    differences = [
        float((torch.from_numpy(answer.vector) - _mean(library, _texts()[row])[0].cpu()).norm())
        for row, answer in _answers(model, options, _texts()).items()
    ]
    wrong = sum(each > BOUND[dtype] for each in differences)
    share = 1 - wrong / len(differences)
    return Comparison("embed", "bert", _name(dtype), ROWS, wrong, share, max(differences))


def _explained(model: Path, dtype: torch.dtype) -> Comparison:
    options = ClassifyOptions(dtype=_name(dtype), explain=Explain(every=1, steps=16))
    texts = dict(list(_texts().items())[:8])
    loaded = _engine(model, options)
    together = loaded.answer(texts, beat=lambda: None)
    alone = {row: loaded.answer({row: text}, beat=lambda: None)[row] for row, text in texts.items()}
    differences = [
        abs(ours.weight - theirs.weight)
        for row in texts
        for ours, theirs in zip(_why(together[row]), _why(alone[row]), strict=True)
    ]
    wrong = sum(each > BOUND[dtype] for each in differences)
    share = 1 - wrong / len(differences)
    return Comparison("explain", "bert", _name(dtype), len(texts), wrong, share, max(differences))


def _why(answer: Any) -> Sequence[Any]:
    assert answer.explanation
    return tuple(answer.explanation)


def _generated(model: Path, dtype: torch.dtype, *, model_name: str) -> Comparison:
    library = _Reference(model, auto=AutoModelForCausalLM, dtype=dtype)
    theirs = {row: library.written(text, decoder_alone=True) for row, text in _texts().items()}
    options = GenerateOptions(dtype=_name(dtype), max_new_tokens=STEPS)
    return _written("generate", model_name, _answers(model, options, _texts()), theirs, dtype)


def _sampled(model: Path, dtype: torch.dtype, *, model_name: str) -> Comparison:
    options = GenerateOptions(dtype=_name(dtype), max_new_tokens=STEPS, temperature=1.0, seed=3)
    loaded = _engine(model, options)
    theirs = {
        row: loaded.answer({row: text}, beat=lambda: None)[row] for row, text in _texts().items()
    }
    texts = {row: _text_of(answer) for row, answer in theirs.items()}
    answers = loaded.answer(_texts(), beat=lambda: None)
    return _written("generate, sampled, against alone", model_name, answers, texts, dtype)


def _translated(model: Path, dtype: torch.dtype, *, model_name: str) -> Comparison:
    library = _Reference(model, auto=AutoModelForSeq2SeqLM, dtype=dtype)
    theirs = {row: library.written(text, decoder_alone=False) for row, text in _texts().items()}
    options = Text2TextOptions(dtype=_name(dtype), max_new_tokens=STEPS)
    return _written("text2text", model_name, _answers(model, options, _texts()), theirs, dtype)


def _written(
    kind: str, model: str, answers: Answers, theirs: Mapping[int, str], dtype: torch.dtype
) -> Comparison:
    equal = statistics.mean(_text_of(answers[row]) == text for row, text in theirs.items())
    wrong = round((1 - equal) * len(theirs)) if dtype is torch.float32 else 0
    return Comparison(kind, model, _name(dtype), len(theirs), wrong, equal, None)


def _text_of(answer: Any) -> str:
    assert not isinstance(answer, engine.RowError), answer
    return str(answer.output)


def _entities(model: Path, dtype: torch.dtype) -> Comparison:
    return _piped("token-classification", model, dtype, rows=_texts(), architecture="bert")


def _images(model: Path, dtype: torch.dtype) -> Comparison:
    rows = {
        row: tiny_pipelines.an_image(model / f"{row}.png", seed=row).resolve().as_uri()
        for row in range(8)
    }
    return _piped("image-classification", model, dtype, rows=rows, architecture="vit")


def _piped(
    task: str, model: Path, dtype: torch.dtype, *, rows: Mapping[int, str], architecture: str
) -> Comparison:
    """Labels in order, and the first score of each."""
    make: Any = pipeline
    theirs = make(task, model=str(model), device=model_loader.device(), dtype=dtype)
    options = PipelineOptions(dtype=_name(dtype))
    settings = Settings(worker_threads=1, calibration_folder="", allowed_inputs=["file:///"])
    ours = engine.load(model, options, settings=settings).answer(rows, beat=lambda: None)
    equal, differences = 0, [0.0]
    for row, value in rows.items():
        mine = json.loads(_text_of(ours[row]))
        wanted = theirs(value.removeprefix("file://"))
        names = [[_label(each) for each in rows] for rows in (mine, wanted)]
        equal += names[0] == names[1]
        pairs = zip(mine, wanted, strict=False)  # where their lengths differ, so do the names
        differences += [abs(float(one["score"]) - float(other["score"])) for one, other in pairs]
    far = sum(each > BOUND[dtype] for each in differences)
    wrong = len(rows) - equal + far if dtype is torch.float32 else 0
    return Comparison(
        f"pipeline, {task}",
        architecture,
        _name(dtype),
        len(rows),
        wrong,
        equal / len(rows),
        max(differences),
    )


def _label(answer: Mapping[str, Any]) -> str:
    return str(answer.get("entity", answer.get("label")))


def _name(dtype: torch.dtype) -> Any:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
