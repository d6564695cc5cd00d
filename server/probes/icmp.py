"""The icmp check: echo requests, how many were answered, and how fast."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.fields import WHOLE


class IcmpOptions(BaseModel):
    """How an icmp check goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"packets": 3}]})

    packets: Annotated[
        int, Field(ge=1, le=10, description="How many echo requests to send. Down is where none is answered."), WHOLE
    ] = 3
