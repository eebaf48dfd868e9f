"""The one shape of every error, which the official client reads."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What was refused, and why."""

    message: str = Field(description="What is required, and what was given.")
    type: str = Field(description="The family of the error, after its status.")
    param: str | None = Field(description="The path of the field that is at fault; null: none is.")
    code: str = Field(description="Stable: compare this one.")


class ErrorAnswer(BaseModel):
    """Any answer that is not a success."""

    error: ErrorDetail
