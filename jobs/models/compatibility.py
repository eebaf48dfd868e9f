"""Whether a model can do what a job asks of it, as far as its files tell.

Every refusal is a ``ModelFailure`` with a code of the list in ``jobs.models.inspection``.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.decisions import signature_defaults
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
from jobs.models.inspection import WIDTHS, ModelFacts
from jobs.models.sentence_transformers import POOLING

CAUSAL = ("ForCausalLM", "LMHeadModel")
SEQ2SEQ = ("ForConditionalGeneration", "MTModel", "EncoderDecoderModel")
AUDIO_HEADS = (
    "ASTForAudioClassification",
    "HubertForSequenceClassification",
    "SEWForSequenceClassification",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2ConformerForSequenceClassification",
    "Wav2Vec2ForSequenceClassification",
    "WavLMForSequenceClassification",
)
SPEECH_WRITERS = ("WhisperForConditionalGeneration",)
PIPELINES: dict[PipelineTask, tuple[str, ...]] = {
    PipelineTask.TOKEN_CLASSIFICATION: ("ForTokenClassification",),
    PipelineTask.FILL_MASK: ("ForMaskedLM",),
    PipelineTask.IMAGE_CLASSIFICATION: ("ForImageClassification",),
    PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION: ("CLIPModel", "SiglipModel", "Siglip2Model"),
    PipelineTask.OBJECT_DETECTION: ("ForObjectDetection",),
    PipelineTask.AUDIO_CLASSIFICATION: ("ForAudioClassification", *AUDIO_HEADS),
    PipelineTask.SPEECH_RECOGNITION: ("ForCTC", "ForSpeechSeq2Seq", *SPEECH_WRITERS),
}
"""How the architectures end that each task is for."""

READS_TEXTS = frozenset({PipelineTask.TOKEN_CLASSIFICATION, PipelineTask.FILL_MASK})
"""Tasks whose rows are texts; those of the others name files."""

WRITES_TEXTS = frozenset(
    {PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION, PipelineTask.SPEECH_RECOGNITION}
)
"""Tasks that need a tokenizer beside what reads their files."""

PARAMETERS: dict[PipelineTask, frozenset[str]] = {
    PipelineTask.TOKEN_CLASSIFICATION: frozenset(
        {"aggregation_strategy", "delimiter", "ignore_labels", "is_split_into_words", "stride"}
    ),
    PipelineTask.FILL_MASK: frozenset({"targets", "tokenizer_kwargs", "top_k"}),
    PipelineTask.IMAGE_CLASSIFICATION: frozenset({"function_to_apply", "top_k"}),
    PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION: frozenset(
        {"candidate_labels", "hypothesis_template", "tokenizer_kwargs"}
    ),
    PipelineTask.OBJECT_DETECTION: frozenset({"threshold"}),
    PipelineTask.AUDIO_CLASSIFICATION: frozenset({"function_to_apply", "top_k"}),
    PipelineTask.SPEECH_RECOGNITION: frozenset(
        {
            "chunk_length_s",
            "decoder_kwargs",
            "generate_kwargs",
            "return_language",
            "return_timestamps",
            "stride_length_s",
        }
    ),
}
"""What each task's pipeline may be called with.

The library's pipelines take more: some pass over a name that they do not know, and by others
(``images``) a job would read a file that the allow-list keeps from it.
"""

MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of a sentence-transformers folder that are followed, in this order, the last or not."""

POOLINGS = (*Pooling, "mean_sqrt_len")


def check(facts: ModelFacts, options: Options) -> None:
    """Raise ``ModelFailure`` unless this model can do what the options ask."""
    if not isinstance(options, PipelineOptions):
        check_reads_texts(facts)
        check_vocabulary(facts.vocabulary, largest_token=facts.largest_token)
    signature_defaults.check_labels(options, facts.signature)
    match options:
        case PipelineOptions():
            _check_pipeline(facts, task(facts, options), options)
        case ClassifyOptions(labels=None):
            _check_classifier(facts)
        case ClassifyOptions(hypothesis=str()):
            _check_classifier(facts)
            entailment(facts.id2label or ())
        case ClassifyOptions():
            _check_encoder(facts, "labels need")
            _check_followed(facts, pooling=facts.pooling or Pooling.MEAN)
        case EmbedOptions():
            _check_encoder(facts, "embed needs")
            _check_without_decoder(facts)
            _check_followed(facts, pooling=options.pooling or facts.pooling or Pooling.MEAN)
            _check_embedding(facts, options)
        case GenerateOptions():
            _check_generator(facts, options)
            _check_room(facts, options)
        case Text2TextOptions():
            _check_text2text(facts)
            _check_decoder(facts, options)


def check_reads_texts(facts: ModelFacts) -> None:
    """Raise ``ModelFailure`` for a model of images or sounds alone."""
    if not facts.has_tokenizer:
        raise ModelFailure(
            f"the model reads no texts: it has no tokenizer ({_named(facts)})",
            code="model_no_tokenizer",
        )


def check_vocabulary(rows: int | None, *, largest_token: int | None) -> None:
    """Raise ``ModelFailure`` where texts become token ids beyond the table of embeddings."""
    if rows is None or largest_token is None or largest_token < rows:
        return
    raise ModelFailure(
        f"the model's tokenizer has token ids up to {largest_token}, and its table of embeddings "
        f"has {rows} rows (vocab_size): resize it with "
        "model.resize_token_embeddings(len(tokenizer)), train it, and save both",
        code="model_few_embeddings",
    )


def task(facts: ModelFacts, options: PipelineOptions) -> PipelineTask:
    """The pipeline's task: the option, or else what the model's architecture was made for."""
    if options.task is not None:
        return options.task
    for found in PIPELINES:
        if _is_made_for(facts, found) and (found in READS_TEXTS or facts.has_preprocessor):
            return found
    raise ModelFailure(
        f"no pipeline is known for this model ({_named(facts)}): classify, embed, generate and "
        f"text2text are kinds of their own; pipeline.task may be {', '.join(PipelineTask)}",
        code="model_no_pipeline",
    )


def prompt(facts: ModelFacts, options: EmbedOptions) -> str:
    """What stands before every text: the option, or else what the model's files say."""
    return facts.prompt if options.prompt is None else options.prompt


def width(facts: ModelFacts, options: EmbedOptions) -> int:
    """Numbers in an embedding by a model that can do what the options ask."""
    assert facts.width is not None, "check refuses it"
    return options.dimensions or facts.dimensions or facts.width


def entailment(labels: Sequence[str]) -> int:
    """Which output of a model of natural language inference says yes."""
    for place, label in enumerate(labels):
        if label.lower().startswith("entail"):
            return place
    raise ModelFailure(
        "a hypothesis needs a model of natural language inference, with an entailment among its "
        f"labels; this one's are {', '.join(labels) or 'not named'}",
        code="model_not_a_classifier",
    )


def _is_made_for(facts: ModelFacts, task: PipelineTask) -> bool:
    return any(name.endswith(PIPELINES[task]) for name in facts.architectures)


def _check_pipeline(facts: ModelFacts, task: PipelineTask, options: PipelineOptions) -> None:
    if facts.architectures and not _is_made_for(facts, task):
        raise ModelFailure(
            f"{task} needs a model of another architecture (...{', ...'.join(PIPELINES[task])}); "
            f"this one is {_named(facts)}",
            code="model_no_pipeline",
        )
    if task in READS_TEXTS | WRITES_TEXTS:
        check_reads_texts(facts)
    if task not in READS_TEXTS and not facts.has_preprocessor:
        raise ModelFailure(
            f"{task} needs a preprocessor_config.json in the model's folder, which says how its "
            "images or sounds are read",
            code="model_no_preprocessor",
        )
    if unknown := options.parameters.keys() - PARAMETERS[task]:
        raise ModelFailure(
            f"pipeline.parameters of {task} may be {', '.join(sorted(PARAMETERS[task]))}, not "
            f"{', '.join(sorted(unknown))}",
            code="pipeline_refused",
        )
    candidates = options.parameters.get("candidate_labels")
    if task is PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION and not candidates:
        raise ModelFailure(
            f"{task} needs pipeline.parameters.candidate_labels, a list of texts",
            code="pipeline_refused",
        )


def _check_classifier(facts: ModelFacts) -> None:
    if not facts.has_head:
        raise ModelFailure(
            f"the model has no sequence-classification head ({_named(facts)}): pass labels, and "
            "the nearest label text wins, or choose a model that was trained to classify",
            code="model_has_no_head",
        )
    if facts.problem_type == "regression":
        raise ModelFailure(
            "the model's head is a regression (problem_type in config.json); "
            "classify needs one that was trained on labels",
            code="model_not_a_classifier",
        )


def _check_encoder(facts: ModelFacts, who: str) -> None:
    generates = any(name.endswith(CAUSAL + SEQ2SEQ) for name in facts.architectures)
    if generates and facts.pooling is None:
        raise ModelFailure(
            f"{who} an encoder that embeds texts; this model generates ({_named(facts)})",
            code="model_not_an_encoder",
        )


def _check_without_decoder(facts: ModelFacts) -> None:
    if facts.has_decoder:
        raise ModelFailure(
            f"embed needs an encoder that stands alone; this model has a decoder ({_named(facts)})",
            code="model_not_an_encoder",
        )


def _check_followed(facts: ModelFacts, *, pooling: str) -> None:
    """Raise where the folder asks for a step that would be left out in silence."""
    followed = facts.modules in {(), MODULES[:2], MODULES}
    if not followed or pooling not in POOLINGS:
        needs = f"{pooling} pooling" if followed else f"the modules {', '.join(facts.modules)}"
        raise ModelFailure(
            f"the model's embeddings need {needs}, which is not supported: the modules must be "
            f"{', '.join(MODULES[:2])} and perhaps {MODULES[2]}, with pooling by one of "
            f"{', '.join(POOLINGS)}",
            code="model_unsupported",
        )
    if facts.modules and facts.pooling is None:
        raise ModelFailure(
            f"{POOLING} of the model is missing, which its modules.json names: fetch it as well",
            code="model_unsupported",
        )


def _check_embedding(facts: ModelFacts, options: EmbedOptions) -> None:
    if facts.width is None:
        raise ModelFailure(
            f"config.json of the model must say how long a token's vector is ({', '.join(WIDTHS)})",
            code="model_unsupported",
        )
    if width(facts, options) > facts.width:
        raise ModelFailure(
            f"embed.dimensions must be at most {facts.width}, the length of the model's vectors, "
            f"not {width(facts, options)}",
            code="model_too_narrow",
        )
    if prompt(facts, options) and not facts.pools_prompt:
        raise ModelFailure(
            "the model pools without the tokens of its prompt (include_prompt), which is not "
            "supported: choose another model, or one without a prompt",
            code="model_unsupported",
        )


def _check_generator(facts: ModelFacts, options: GenerateOptions) -> None:
    if not any(name.endswith(CAUSAL) for name in facts.architectures):
        raise ModelFailure(
            f"generate needs a causal language model (...{', ...'.join(CAUSAL)} in config.json); "
            f"this one is {_named(facts)}",
            code="model_not_a_generator",
        )
    if (options.chat or options.system is not None) and not facts.has_chat_template:
        raise ModelFailure(
            "the model's tokenizer has no chat template: leave chat and system out, and write the "
            "prompt as the model was trained on it",
            code="model_no_chat_template",
        )


def _check_room(facts: ModelFacts, options: GenerateOptions) -> None:
    if facts.max_tokens is not None and options.max_new_tokens >= facts.max_tokens:
        raise ModelFailure(
            f"generate.max_new_tokens must be less than {facts.max_tokens}, what the model can "
            f"read and write in all, not {options.max_new_tokens}",
            code="model_too_short",
        )


def _check_text2text(facts: ModelFacts) -> None:
    if not any(name.endswith(SEQ2SEQ) for name in facts.architectures):
        raise ModelFailure(
            "text2text needs an encoder with a decoder, such as T5, BART, Marian or NLLB "
            f"(...{', ...'.join(SEQ2SEQ)} in config.json); this one is {_named(facts)}",
            code="model_not_text2text",
        )


def _check_decoder(facts: ModelFacts, options: Text2TextOptions) -> None:
    if facts.decoder_positions is None or options.max_new_tokens <= facts.decoder_positions:
        return
    raise ModelFailure(
        f"text2text.max_new_tokens must be at most {facts.decoder_positions}, the positions of the "
        f"model's decoder, not {options.max_new_tokens}",
        code="model_too_short",
    )


def _named(facts: ModelFacts) -> str:
    return ", ".join(facts.architectures) or facts.model_type or "unknown"
