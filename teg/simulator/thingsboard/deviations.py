"""Switches that make the stand-in wrong on purpose: each group of conformance tests has to notice those of its name.

For tests of those tests only: `ThingsBoard(deviation=NAME)`. docs/stand-in.md lists them.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from teg.simulator.thingsboard.faults import Faults, Trigger, always, every, when
from teg.simulator.thingsboard.provisioning import Provisioning

Apply = Callable[[Faults, Provisioning], None]


@dataclass(frozen=True, slots=True)
class Deviation:
    """`group` is that of the tests which have to notice; `apply` runs before the server's first packet."""

    group: str
    what: str
    apply: Apply

    @property
    def name(self) -> str:
        return f"{self.group}: {self.what}"


def _faults(**values: Any) -> Apply:
    """A function among the values makes a fresh trigger: each counts for one server."""

    def apply(faults: Faults, _provisioning: Provisioning) -> None:
        for name, value in values.items():
            setattr(faults, name, value() if callable(value) else value)

    return apply


def _provisioning(**values: Any) -> Apply:
    def apply(_faults: Faults, provisioning: Provisioning) -> None:
        for name, value in values.items():
            setattr(provisioning, name, value() if callable(value) else value)

    return apply


def _altered(alter: Callable[[bytes], bytes]) -> Apply:
    return _faults(alter_payload=lambda: alter)


def _as_text(payload: bytes) -> bytes:
    """Every value gets a letter in front and becomes text, every key stays."""
    return re.sub(rb'(: ?)(?:"([^"]*)"|([^\s,}]+))', rb'\1"x\2\3"', payload)


def _another_time(payload: bytes) -> bytes:
    return payload.replace(b'"ts"', b'"TS"')


def _lost() -> Callable[[bytes], bytes]:
    counted = itertools.count()
    return lambda payload: b"{}" if next(counted) % 5 == 4 else payload


def _refusals() -> list[int]:
    return [5] * 10_000


def _topics(*parts: str) -> Callable[[], Trigger]:
    return lambda: when(lambda message: any(part in message.topic for part in parts))


_ALL = (
    Deviation("sessions", "every login is admitted", _faults(admit_strangers=True)),
    Deviation("sessions", "every filter is refused", _faults(refuse_subscription=always)),
    Deviation("sessions", "PUBACKs are lost", _faults(drop_puback=always)),
    Deviation("sessions", "nothing is closed", _faults(never_close=True)),
    Deviation("sessions", "pings are not answered", _faults(drop_pingresp=True)),
    Deviation("sessions", "session present is told as it is", _faults(tell_no_session_present=True)),
    Deviation("closes", "nothing is closed", _faults(never_close=True)),
    Deviation("closes", "PUBACKs are lost", _faults(drop_puback=always)),
    Deviation("values", "values are text", _altered(_as_text)),
    Deviation("values", "time stamps are not read", _altered(_another_time)),
    Deviation("values", "nothing is closed", _faults(never_close=True)),
    Deviation("values", "PUBACKs are lost", _faults(drop_puback=always)),
    Deviation("attributes", "client attributes are not kept", _faults(drop_client_attributes=True)),
    Deviation("attributes", "subscriptions are not registered", _faults(lose_subscription=always)),
    Deviation("attributes", "nothing is sent down", _faults(drop_downlinks=always)),
    Deviation("topics", "nothing is sent down", _faults(drop_downlinks=always)),
    Deviation("topics", "values are text", _altered(_as_text)),
    Deviation("calls", "requests come twice", _faults(duplicate_rpc=always)),
    Deviation("calls", "requests are not sent down", _faults(drop_downlinks=_topics("/rpc/"))),
    Deviation("calls", "all is well", _faults(calls_succeed=True)),
    Deviation("packages", "chunks are reversed", _faults(ota_chunk=lambda: lambda _number, data: data[::-1])),
    Deviation("packages", "nothing is closed", _faults(never_close=True)),
    Deviation("packages", "nothing is sent down", _faults(drop_downlinks=always)),
    Deviation("packages", "packages with a URL fail", _faults(fail_url_packages=True)),
    Deviation("provisioning", "every request fails", _provisioning(fail=always)),
    Deviation("provisioning", "nothing is answered", _provisioning(swallow_answer=always)),
    Deviation("provisioning", "nothing is closed", _faults(never_close=True)),
    Deviation("provisioning", "every filter is refused", _faults(refuse_subscription=always)),
    Deviation("provisioning", "every login is refused", _faults(connack_codes=_refusals)),
    Deviation("claiming", "claims are forgotten", _faults(forget_claims=True)),
    Deviation("claiming", "whoever asks gets the device", _faults(grant_claims=True)),
    Deviation("limits", "there are none", _faults(ignore_rate_limits=True)),
    Deviation("queue", "attributes do not wait", _faults(attributes_overtake=True)),
    Deviation("activity", "nothing is noted", _faults(forget_activity=True)),
    Deviation("deployment", "no alarm rule is run", _faults(skip_alarm_rules=True)),
    Deviation("deployment", "what is saved comes back empty", _faults(forget_contents=True)),
    Deviation("mqtt5", "reasons are not told", _faults(hide_reasons=True)),
    Deviation("mqtt5", "every login is refused", _faults(connack_codes=_refusals)),
    Deviation("mqtt5", "every filter is refused", _faults(refuse_subscription=always)),
    Deviation("gateway", "every fifth record is lost", _faults(alter_payload=_lost)),
    Deviation("gateway", "every second downlink is lost", _faults(drop_downlinks=lambda: every(2))),
    Deviation("gateway", "no call is sent down", _faults(drop_downlinks=_topics("/rpc/"))),
    Deviation("gateway", "nothing is stored", _altered(lambda _payload: b"{}")),
)

#: The first of each group is the one that `make test` runs, all of them are run by `make torture`.
DEVIATIONS: Mapping[str, Deviation] = {deviation.name: deviation for deviation in _ALL}
