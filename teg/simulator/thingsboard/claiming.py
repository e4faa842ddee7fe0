"""A device offers itself to customers (`v1/devices/me/claim`), and a customer's user takes it.

Source: ThingsBoard's ClaimDevicesServiceImpl, with claiming allowed by default.
"""

import time
from dataclasses import dataclass
from typing import Literal

from teg.simulator.thingsboard.payloads import ConversionFailed, parse_object

#: security.claim.duration of thingsboard.yml, for a claim without one.
DEFAULT_MS = 86_400_000

Outcome = Literal["SUCCESS", "FAILURE", "CLAIMED"]


@dataclass(frozen=True, slots=True)
class Claim:
    secret: str
    until_s: float

    def admits(self, secret: str) -> bool:
        return secret == self.secret and time.monotonic() <= self.until_s


def parse_claim(payload: bytes) -> Claim:
    """An empty payload offers without a secret. Raise `BadPayload` for anything that is no object."""
    body = parse_object(payload) if payload else {}
    duration, secret = body.get("durationMs", 0), body.get("secretKey", "")
    if isinstance(duration, bool) or not isinstance(duration, int):
        raise ConversionFailed(f"durationMs is {duration!r}")
    return Claim(str(secret), time.monotonic() + (duration or DEFAULT_MS) / 1000)


def outcome(claim: Claim | None, secret: str, taken: bool) -> Outcome:
    """What a customer's user gets who asks for the device with this secret."""
    if claim is None:
        return "CLAIMED" if taken else "FAILURE"
    if not claim.admits(secret):
        return "FAILURE"
    return "CLAIMED" if taken else "SUCCESS"
