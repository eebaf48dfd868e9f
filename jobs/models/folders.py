"""Where hub models and local folders are found.

``jobs.artefacts`` fetches versions of the registry and folders of an object store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import private_places
from jobs.errors import ModelFailure
from jobs.models import references
from jobs.models.references import Folder, HubModel

HUB_FILES = [
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "tokenizer*",
    "chat_template*",
    "1_Pooling/*",
]
NEVER_DOWNLOADED = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pkl",
    "*.pickle",
    "*.py",
    "*/*.safetensors",
]


def locate(reference: str, *, allowed: Sequence[str], private: Sequence[str] = ()) -> Path:
    """The local folder of an allowed reference; a hub model is downloaded if it is not here.

    ``private`` are the places of ``jobs.private_places``, which are no model.

    Raises ``ModelFailure``: model_refused, model_missing, model_hub_unreachable.
    """
    match references.check_allowed(reference, allowed):
        case HubModel(name=name, revision=revision):
            return _download(name, revision=revision)
        case Folder(path=path):
            return _local(Path(path), allowed=allowed, private=private)
    raise ModelFailure(
        f"{reference!r} is neither a hub model nor a folder: jobs.artefacts fetches models "
        "of the registry or of an object store",
        code="model_missing",
    )


def _download(name: str, *, revision: str | None) -> Path:
    import huggingface_hub  # noqa: PLC0415 - most processes download nothing
    from huggingface_hub import errors as hub_errors  # noqa: PLC0415

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=NEVER_DOWNLOADED
        )
    except (
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
        hub_errors.HFValidationError,
    ) as error:
        raise ModelFailure(
            f"the hub has no model {name!r} at {revision or 'its default revision'} "
            "that this installation may read (a gated one needs HF_TOKEN)",
            code="model_missing",
        ) from error
    except Exception as error:  # of the hub's client, of HTTP, of the network, of the disk
        raise ModelFailure(
            f"{name!r} could not be fetched from the hub, and there is no complete local copy: "
            f"{error}",
            code="model_hub_unreachable",
        ) from error
    return Path(folder)


def _local(folder: Path, *, allowed: Sequence[str], private: Sequence[str]) -> Path:
    """The real folder; links are followed on both sides before they are compared."""
    real = folder.resolve()
    prefixes = [Path(entry).resolve() for entry in references.folders(allowed)]
    if not any(real.is_relative_to(prefix) for prefix in prefixes):
        raise references.refused(str(folder), allowed=allowed)
    if private_places.hold(private, real) or private_places.linked(private, real):
        raise references.private(str(folder))
    if not real.is_dir():
        raise ModelFailure(f"there is no model folder {folder}", code="model_missing")
    return real
