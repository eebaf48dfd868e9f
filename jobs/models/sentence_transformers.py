"""The files that sentence-transformers adds to a model's folder: pooling, modules, prompts."""

from __future__ import annotations

from pathlib import Path

from jobs.models import config_files
from jobs.models.config_files import NO_LIMIT, ConfigFile

SETTINGS = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
MODULE_FOLDERS = {"Transformer": "", "Pooling": "1_Pooling"}
"""Where the modules must lie to be read."""


def settings(folder: Path) -> ConfigFile:
    return config_files.optional(folder, SETTINGS)


def transformer(folder: Path) -> ConfigFile:
    """How texts are tokenized; its file is named after one of the first supported models."""
    paths = sorted(folder.glob("sentence_*_config.json"))
    return config_files.read(paths[0]) if paths else ConfigFile("sentence_bert_config.json", {})


def pooling(folder: Path) -> str | None:
    """The pooling mode, from the current fields or the older ``pooling_mode_*`` flags."""
    config = config_files.optional(folder, POOLING)
    flags = (name for name in config.values if name.startswith("pooling_mode_"))
    modes = config.texts("pooling_mode") or tuple(
        name.removeprefix("pooling_mode_") for name in flags if config.flag(name)
    )
    names = (mode.removesuffix("_tokens").removesuffix("_token") for mode in modes)
    # A file without a mode means the mean.
    return "+".join(names) or ("mean" if config.values else None)


def pools_prompt(folder: Path) -> bool:
    return config_files.optional(folder, POOLING).flag("include_prompt") is not False


def modules(folder: Path) -> tuple[str, ...]:
    """The modules in order; one from elsewhere, or in another folder, is described at length."""
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    return tuple(_module(entry) for entry in config_files.entries(path))


def _module(entry: ConfigFile) -> str:
    cls, place = entry.text("type") or "", entry.text("path") or ""
    if not cls.startswith("sentence_transformers."):
        return cls or "a module without a type"
    name = cls.rpartition(".")[2]
    return name if MODULE_FOLDERS.get(name, place) == place else f"{name} in the folder {place!r}"


def prompt(settings: ConfigFile) -> str:
    """The prompt that is put before a text by default; empty if there is none."""
    name, prompts = settings.text("default_prompt_name"), settings.section("prompts")
    if name is None:
        return ""
    if name not in prompts.values:
        raise settings.wrong("default_prompt_name", "one of the names in prompts")
    return prompts.text(name) or ""


def dimensions(settings: ConfigFile) -> int | None:
    """The dimensions that an embedding is truncated to by default; ``None``: all are kept."""
    count = settings.number("truncate_dim")
    if count is not None and not (1 <= count < NO_LIMIT and count == int(count)):
        raise settings.wrong("truncate_dim", "a whole number of at least 1")
    return None if count is None else int(count)
