"""The attributes of a model's modules at one moment, to see what a forward pass changed for good.

Most models come out of a forward pass as they went in. Some do not: BigBird exchanges its attention
for another after the first short batch, Reformer fixes its buckets by the first long one, rotary
embeddings that grow keep the frequencies of the longest row. Then an answer depends on what was
computed before it, unless all is put back.
"""

# ruff: noqa: SLF001 (a module's parts have no public names)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

CACHES = (torch.Tensor, int, float, list, tuple, dict)
"""Attributes of these kinds are mostly remembered intermediate results; flags are not."""


class Snapshot:
    """What the modules of a model are made of, but for the values of their weights."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._attributes = [_attributes(each) for each in self._modules]
        self._buffers = [
            {name: (buffer, _version(buffer), buffer.clone()) for name, buffer in _buffers(each)}
            for each in self._modules
        ]

    @property
    def changed(self) -> bool:
        """Whether anything is no longer what it was."""
        return self.behaves_otherwise or any(
            not _same(_attributes(module), then)
            for module, then in zip(self._modules, self._attributes, strict=True)
        )

    @property
    def behaves_otherwise(self) -> bool:
        """Whether a module, a flag or a buffer is another, and not only a remembered result."""
        found = zip(self._modules, self._attributes, self._buffers, strict=True)
        return any(
            not _same(_decisive(_attributes(module)), _decisive(then))
            or any(
                module._buffers.get(name) is not buffer or _version(buffer) != version
                for name, (buffer, version, _) in buffers.items()
            )
            for module, then, buffers in found
        )

    def restore(self) -> None:
        """Make everything what it was."""
        found = zip(self._modules, self._attributes, self._buffers, strict=True)
        for module, then, buffers in found:
            for place, name in set(_attributes(module)) - set(then):
                del _holder(module, place)[name]
            for (place, name), value in then.items():
                _holder(module, place)[name] = value
            for own, (buffer, version, copy) in buffers.items():
                module._buffers[own] = buffer
                if _version(buffer) != version:
                    buffer.copy_(copy)


Attributes = dict[tuple[str, str], Any]
"""By where they are kept (directly, or as a submodule) and their names."""


def _attributes(module: nn.Module) -> Attributes:
    own = {
        ("", name): list(value) if isinstance(value, list) else value
        for name, value in vars(module).items()
        if not name.startswith("_") or not isinstance(value, dict | set)
    }
    return own | {("_modules", name): each for name, each in module._modules.items()}


def _holder(module: nn.Module, place: str) -> dict[str, Any]:
    found: dict[str, Any] = module.__dict__ if place == "" else module.__dict__[place]
    return found


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
        return False  # not the same one
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 (what cannot be compared is another)
        return False


def _buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, each) for name, each in module._buffers.items() if each is not None)


def _version(tensor: torch.Tensor) -> int:
    """How often it was written into."""
    return -1 if tensor.is_inference() else tensor._version
