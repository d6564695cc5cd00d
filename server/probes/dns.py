"""The dns check: one question to one resolver, and its answers."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from server.probes.places import read_resolver


class RecordType(StrEnum):
    """What is asked for."""

    A = "A"
    AAAA = "AAAA"
    CAA = "CAA"
    CNAME = "CNAME"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    SOA = "SOA"
    SRV = "SRV"
    TXT = "TXT"


def _check_resolver(resolver: str, info: ValidationInfo) -> str:
    try:
        address, _ = read_resolver(resolver)
    except ValueError as error:
        raise PydanticCustomError("resolver_invalid", "{what}", {"what": str(error)}) from None
    # The early word to whoever types it. The guard that counts is where the question is sent.
    egress = (info.context or {}).get("egress")
    if egress is not None and not egress.permits(address):
        raise PydanticCustomError(
            "resolver_private", "The resolver is in a private network, which this installation does not reach."
        )
    return resolver


Resolver = Annotated[str, StringConstraints(min_length=2, max_length=64), AfterValidator(_check_resolver)]


class DnsOptions(BaseModel):
    """How a dns check goes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"record_type": "MX", "resolver": "9.9.9.9"}]}
    )

    record_type: Annotated[RecordType, Field(description="Which records to ask for.")] = RecordType.A
    resolver: Annotated[
        Resolver | None,
        Field(description="Whom to ask: an IP address, with a port where it is not 53. Null: the worker's own."),
    ] = None
