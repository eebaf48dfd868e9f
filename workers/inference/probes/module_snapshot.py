"""A snapshot of the attributes of a model's modules, to see what a forward pass changes for good.

Most models are the same after a forward pass. Some are not: BigBird exchanges its attention after
the first short batch, Reformer fixes its buckets by the first long one, rotary embeddings that grow
keep the frequencies of the longest row. Then an output depends on the rows before it, unless the
snapshot is restored.
"""

# ruff: noqa: SLF001 (a module's parts have no public names)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

CACHES = (torch.Tensor, int, float, list, tuple, dict)
"""Attributes of these types are mostly cached intermediate results; flags are not."""


class ModuleSnapshot:
    """Submodules, attributes and buffers of all modules of a model, but not its weights."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._attributes = [_attributes(each) for each in self._modules]
        self._buffers = [
            {name: (buffer, _version(buffer), buffer.clone()) for name, buffer in _buffers(each)}
            for each in self._modules
        ]

    @property
    def changed(self) -> bool:
        """Whether anything differs from the snapshot."""
        return self.behaves_differently or any(
            not _same(_attributes(module), then)
            for module, then in zip(self._modules, self._attributes, strict=True)
        )

    @property
    def behaves_differently(self) -> bool:
        """Whether a submodule, a flag or a buffer differs, and not only a cached result."""
        parts = zip(self._modules, self._attributes, self._buffers, strict=True)
        return any(
            not _same(_decisive(_attributes(module)), _decisive(then))
            or any(
                module._buffers.get(name) is not buffer or _version(buffer) != version
                for name, (buffer, version, _) in buffers.items()
            )
            for module, then, buffers in parts
        )

    def restore(self) -> None:
        """Make everything as it was at the snapshot."""
        for module, then, buffers in zip(
            self._modules, self._attributes, self._buffers, strict=True
        ):
            for slot, name in set(_attributes(module)) - set(then):
                del _holder(module, slot)[name]
            for (slot, name), value in then.items():
                _holder(module, slot)[name] = value
            for own, (buffer, version, copy) in buffers.items():
                module._buffers[own] = buffer
                if _version(buffer) != version:
                    buffer.copy_(copy)


Attributes = dict[tuple[str, str], Any]
"""By the module's dictionary that has them (empty, or ``_modules`` for submodules) and by name."""


def _attributes(module: nn.Module) -> Attributes:
    own = {
        ("", name): list(value) if isinstance(value, list) else value
        for name, value in vars(module).items()
        if not name.startswith("_") or not isinstance(value, dict | set)
    }
    return own | {("_modules", name): each for name, each in module._modules.items()}


def _holder(module: nn.Module, slot: str) -> dict[str, Any]:
    holder: dict[str, Any] = module.__dict__ if slot == "" else module.__dict__[slot]
    return holder


def _decisive(attributes: Attributes) -> Attributes:
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, bool) or not (value is None or isinstance(value, CACHES))
    }


def _same(one: Attributes, other: Attributes) -> bool:
    return one.keys() == other.keys() and all(
        value is other[name] or _equal(value, other[name]) for name, value in one.items()
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False  # not the same object
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 (what cannot be compared is another)
        return False


def _buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, each) for name, each in module._buffers.items() if each is not None)


def _version(tensor: torch.Tensor) -> int:
    """How often the tensor was written to."""
    return -1 if tensor.is_inference() else tensor._version
