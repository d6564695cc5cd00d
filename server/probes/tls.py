"""The tls check: a handshake, its certificates, and how long they are good for."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from server.probes.places import read_host


def _check_server_name(name: str) -> str:
    try:
        read_host(name)
    except ValueError as error:
        raise PydanticCustomError("server_name", "{what}", {"what": str(error)}) from None
    return name


ServerName = Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(_check_server_name)]


class TlsOptions(BaseModel):
    """How a tls check goes. The chain and the host name are always verified."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"server_name": None}]})

    server_name: Annotated[
        ServerName | None,
        Field(description="The name to ask for (SNI), and that the certificate must be for. Null: the target's host."),
    ] = None
