"""The states of a delivery."""

from __future__ import annotations

from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery is; ``pending`` until its endpoint took it, or its owner gave it up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    SKIPPED = "skipped"  # its owner enabled the endpoint without what had waited
