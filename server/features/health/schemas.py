"""How the service itself does, on the wire."""

from typing import Literal

from pydantic import BaseModel, Field

State = Literal["up", "down", "fallback"]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Dependency(BaseModel):
    """How one thing that we use does."""

    state: State = Field(
        description="`fallback`: it does not answer, and we do without it for the time being; requests are served."
    )
    ok: bool = Field(description="Whether it is up.", examples=[True])
    latency_ms: float = Field(description="How long the answer took, good or bad.", examples=[4.2])
    detail: str | None = Field(description="What is wrong; null where nothing is.")


class Readiness(BaseModel):
    """Whether requests can be served; `unready` comes with status 503."""

    status: Literal["ready", "unready"]
    dependencies: dict[str, Dependency] = Field(
        examples=[{"database": {"state": "up", "ok": True, "latency_ms": 4.2, "detail": None}}]
    )
