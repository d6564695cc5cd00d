"""One check to be made, whichever kind it is of."""

from dataclasses import dataclass

from pydantic import BaseModel

from server.probes.assertions import Assertion, Subject


@dataclass(frozen=True, slots=True)
class Check:
    """What to do: `options` is the kind's own model, `timeout_seconds` is for all of it."""

    kind: str
    target: str
    timeout_seconds: float
    options: BaseModel
    assertions: tuple[Assertion, ...] = ()

    def reads(self, *subjects: Subject) -> bool:
        """Tell whether an assertion looks at one of these."""
        return any(assertion.subject in subjects for assertion in self.assertions)
