"""The tcp check: a connection, something to say, and what comes back."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.fields import WITHOUT_NUL


class TcpOptions(BaseModel):
    """How a tcp check goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"send": "PING\r\n"}]})

    send: Annotated[
        Annotated[str, Field(max_length=4096), WITHOUT_NUL] | None,
        Field(description="What to send once it is connected, as UTF-8. Null: nothing; many servers speak first."),
    ] = None
