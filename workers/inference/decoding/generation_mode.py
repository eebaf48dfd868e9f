"""Generation modes that a model's files may ask for, and that are not supported here.

The library implements them by code from the hub (contrastive search, DoLa, group beam search,
constrained beam search), which is never run (promise P10). Speculative decoding (assisted, prompt
lookup) is switched off, since it changes only the speed.
"""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from jobs.errors import ModelFailure

UNSUPPORTED = {
    GenerationMode.CONTRASTIVE_SEARCH: ("contrastive search", ("penalty_alpha",)),
    GenerationMode.DOLA_GENERATION: ("DoLa", ("dola_layers",)),
    GenerationMode.GROUP_BEAM_SEARCH: ("group beam search", ("num_beam_groups",)),
    GenerationMode.CONSTRAINED_BEAM_SEARCH: (
        "constrained beam search",
        ("constraints", "force_words_ids"),
    ),
}
"""Each mode's name, and the settings that ask for it."""

SPEED_ONLY_SETTINGS = ("assistant_early_exit", "prompt_lookup_num_tokens", "use_mtp")


def disable_speculation(model: PreTrainedModel) -> None:
    """Unset speculative decoding in the model's own config, which the library merges in."""
    for name in SPEED_ONLY_SETTINGS:
        setattr(model.generation_config, name, None)


def check(config: GenerationConfig) -> None:
    """Raise ``ModelFailure`` for a mode that is not supported."""
    mode = config.get_generation_mode()
    if mode not in UNSUPPORTED:
        return
    name, settings = UNSUPPORTED[mode]
    values: Any = {each: getattr(config, each, None) for each in settings}
    named = ", ".join(f"{each} {value}" for each, value in values.items() if value is not None)
    raise ModelFailure(
        f"the model's generation_config.json asks for {name} ({named}), which needs code from the "
        "hub and is not supported: take it out of the file",
        code="generation_unsupported",
    )
