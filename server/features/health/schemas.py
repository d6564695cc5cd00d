"""How the service itself does, on the wire."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Dependency(BaseModel):
    """How one thing that we need does."""

    ok: bool = Field(examples=[True])
    latency_ms: float = Field(description="How long the answer took, good or bad.", examples=[4.2])
    detail: str | None = Field(description="What is wrong; null where nothing is.")


class Readiness(BaseModel):
    """Whether requests can be served; `unready` comes with status 503."""

    status: Literal["ready", "unready"]
    dependencies: dict[str, Dependency] = Field(
        examples=[{"database": {"ok": True, "latency_ms": 4.2, "detail": None}}]
    )
