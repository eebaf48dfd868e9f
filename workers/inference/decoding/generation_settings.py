"""Which settings of a model's own GenerationConfig allow padding, and generation in several calls.

Each set names the settings that mean the same in that case; a config with any other setting is
treated without the case (promise P6).
"""

from __future__ import annotations

from transformers import GenerationConfig

SAMPLING_AND_BEAM_SETTINGS = frozenset(
    {
        "diversity_penalty",
        "early_stopping",
        "epsilon_cutoff",
        "eta_cutoff",
        "length_penalty",
        "min_p",
        "num_beam_groups",
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
    }
)
"""Settings that are ignored: ``TokenChoiceProcessor`` chooses tokens."""

RESUMABLE_SETTINGS = SAMPLING_AND_BEAM_SETTINGS | {
    "_from_model_config",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "max_new_tokens",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "renormalize_logits",
    "repetition_penalty",
    "suppress_tokens",
    "transformers_version",
    "use_cache",
}
"""Settings that mean the same in one call of ``generate`` and in several. Others may count from the
beginning of a call, or look at padding."""

SAFE_BESIDE_PADDING = RESUMABLE_SETTINGS | {
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_eos_token_id",
    "min_new_tokens",
    "remove_invalid_values",
}
"""Settings of a causal model that mean the same with left padding: of the processors in
transformers 5.23, those that look at no token of the prompt, or at the mask as well, and count from
the prompt's end. With others only prompts of equal length share a batch: n-grams, biases of
sequences, bad words, watermarks and penalties of the prompt would take padding for text;
``min_length`` and a forced first token count it."""

SAFE_WITH_ENCODER = SAFE_BESIDE_PADDING | {
    "bad_words_ids",
    "forced_bos_token_id",
    "min_length",
    "no_repeat_ngram_size",
    "sequence_bias",
    "watermarking_config",
}
"""The same where the encoder's input is padded; the decoder's tokens are not. Left out are
penalties and n-grams of the encoder's input, and guidance."""


def changed(config: GenerationConfig) -> set[str]:
    """The names of settings that differ from the library's defaults and are not empty."""
    return {name for name, value in config.to_diff_dict().items() if value}
