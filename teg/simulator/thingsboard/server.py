"""A ThingsBoard that speaks MQTT to devices and Python to tests: one server in a background thread.

    with ThingsBoard() as server:
        device = server.add_device("pi-07", token="T1")
        ...                                    # a client connects to server.host, server.port
        device.wait_for(lambda d: d.latest("temperature") == 21.5, timeout_s=5)
        assert device.rpc("ping").response == {"message": "Pong"}

It behaves as ThingsBoard 4.2 to 4.4 does, down to what is awkward: it is no broker, it closes the socket
without a word, and it acknowledges what it drops. On the command line: `python -m teg.simulator.thingsboard`.
"""

import asyncio
import functools
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from teg.simulator.thingsboard.core import Backup, Connection, Core
from teg.simulator.thingsboard.credentials import Credentials
from teg.simulator.thingsboard.deviations import DEVIATIONS
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import Faults
from teg.simulator.thingsboard.listener import Listener
from teg.simulator.thingsboard.login import Login
from teg.simulator.thingsboard.loop_thread import LoopThread
from teg.simulator.thingsboard.packet_log import PacketLog
from teg.simulator.thingsboard.provisioning import Provisioning
from teg.simulator.thingsboard.rate_limits import DeviceLimiter, RateLimits
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.telemetry_store import Depth

if TYPE_CHECKING:
    from teg.simulator.thingsboard.rest.listener import RestListener
    from teg.simulator.thingsboard.tls import ServerTls


class ThingsBoard:
    """Starts on entering the `with` block, on a free port unless one is given.

    `store`: "full" keeps every raw payload, "distinct" only the points, "count" only numbers.
    `packet_log`: how many packets `packets` remembers, 0 = none.
    `rest_port`: where to answer the REST API as well (0 = any free port, None = nowhere).
    `deviation`: the name of one of `deviations.DEVIATIONS`: wrong on purpose, for tests that have to notice it.
    Leaving the block raises AssertionError if the stand-in itself had failed.
    """

    def __init__(
        self,
        port: int = 0,
        tls: "ServerTls | None" = None,
        *,
        host: str = "127.0.0.1",
        limits: ServerLimits | None = None,
        store: Depth = "full",
        packet_log: int = 10_000,
        rest_port: int | None = None,
        deviation: str | None = None,
    ) -> None:
        self._thread = LoopThread("thingsboard")
        self._core = Core(self._thread.loop, limits or ServerLimits(), store, PacketLog(packet_log))
        context = tls.context() if tls else None
        if context is not None:
            self._core.trust_client = lambda pem: context.load_verify_locations(cadata=pem)
        self._listener = Listener(self._core, host, port, context, Login(self._core))
        self._rest = None if rest_port is None else _rest_listener(self._core, host, rest_port)
        self._devices: dict[str, Device] = {}
        if deviation:
            DEVIATIONS[deviation].apply(self._core.faults, self._core.provisioning)
        self.host: str = self._listener.host
        self.port: int = self._listener.port

    def __enter__(self) -> "ThingsBoard":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self._thread.failures:
            raise AssertionError(f"the stand-in itself failed: {self._thread.failures}")

    def start(self) -> None:
        self._thread.start()
        self._thread.run(self._listener.open())
        if self._rest is not None:
            self._thread.run(self._rest.open())

    def stop(self) -> None:
        """Orderly: what was acknowledged is stored."""
        self._thread.run(self._shut_down())
        self._thread.stop()

    # --- devices

    def add_device(self, name: str, token: str | None = None) -> Device:
        """A device with an access token, by default "token-<name>"."""
        return self._add(name, Credentials(token=token or f"token-{name}"))

    def add_basic_device(
        self,
        name: str,
        *,
        client_id: str | None = None,
        user_name: str | None = None,
        password: str | None = None,
    ) -> Device:
        """A device with MQTT basic credentials: every field given has to match."""
        return self._add(name, Credentials(None, client_id, user_name, password))

    def add_certificate_device(self, name: str, certificate: str) -> Device:
        """A device that shows this X.509 certificate (PEM), found by its fingerprint."""
        self.trust_client(certificate)
        return self._add(name, Credentials(certificate=certificate.strip()))

    def trust_client(self, certificate: str) -> None:
        """Let TLS take a certificate that no device has; ThingsBoard takes any, and then knows no device."""
        self._thread.call(lambda: self._core.trust_client(certificate))

    def delete_device(self, name: str) -> None:
        """Its session is closed and its credentials are unknown from now on."""
        self._thread.call(lambda: self._core.delete_device(name))

    def recreate_device(self, name: str) -> Device:
        """Deleted and created again under its name and credentials: it is empty, and another device to the server."""
        credentials = self._core.devices[name].credentials
        self.delete_device(name)
        self._thread.call(lambda: self._core.add_device(name, credentials))
        return self.device(name)

    def device(self, name: str) -> Device:
        """Also one that provisioned itself. Raise KeyError when there is none of that name."""
        state = self._core.devices[name]
        known = self._devices.get(name)
        if known is None or known._state is not state:
            known = Device(state, self._thread, self._core.changes, self._core.limits)
            self._devices[name] = known
        return known

    @property
    def devices(self) -> list[Device]:
        return [self.device(name) for name in list(self._core.devices)]

    def wait_for_device(self, name: str, timeout_s: float = 10.0) -> Device:
        """Wait until a device of this name exists, that is, until it was provisioned."""
        self.wait_for(lambda: name in self._core.devices, timeout_s, f"device {name!r}")
        return self.device(name)

    # --- the server as a whole

    @property
    def rest_url(self) -> str:
        """Where the REST API is; the tenant's user is in `rest.accounts.DEFAULT_USERS`."""
        if self._rest is None:
            raise ValueError("this stand-in was made without rest_port")
        return f"http://{self._rest.host}:{self._rest.port}"

    @property
    def faults(self) -> Faults:
        """Assign to its attributes at any time."""
        return self._core.faults

    @property
    def provisioning(self) -> Provisioning:
        return self._core.provisioning

    @property
    def packets(self) -> PacketLog:
        return self._core.packets

    @property
    def handshake_failures(self) -> list[str]:
        """TLS handshakes that came to nothing."""
        return list(self._listener.handshake_failures)

    @property
    def open_connections(self) -> int:
        """TCP connections, logged in or not."""
        return len(self._core.open_connections)

    def limit(self, rate_limits: RateLimits | str | None) -> None:
        """Give every device full buckets of the new size."""
        self._thread.call(lambda: self._set_limits(RateLimits.of(rate_limits)))

    def pause_reading(self, paused: bool = True) -> None:
        """Leave the clients' bytes in the kernel, on open and on new connections."""
        self._thread.call(lambda: self._pause(paused))

    def reset_connections(self) -> None:
        """TCP reset on every connection."""
        self._each_connection(lambda connection: connection.reset("reset by the test"))

    def drop_connections(self) -> None:
        """Close every socket, as when the server process dies."""
        self._each_connection(lambda connection: connection.abort("server went away"))

    def restart(self) -> None:
        """An orderly stop and start: what is queued is stored first.

        All sockets are closed, RPC ids begin at 0 again, of the calls only persistent QUEUED ones come back.
        """
        self._end_process("server stopped", self._core.queue.drain)

    def crash(self) -> None:
        """As after kill -9 and a start: what was acknowledged and not yet stored is forgotten.

        It is back at once; for an outage, `stop_listening(drop_connections=False)` comes before.
        """
        self._end_process("server crashed", self._core.queue.forget)

    @property
    def queued(self) -> int:
        """Messages that were acknowledged and are not stored yet."""
        return len(self._core.queue)

    def store_queued(self) -> None:
        """Store everything acknowledged, at once, as an orderly stop does."""
        self._thread.call(self._core.queue.drain)

    def wait_stored(self, timeout_s: float = 10.0) -> None:
        """Wait until everything acknowledged is stored."""
        self.wait_for(lambda: not self.queued, timeout_s, "everything stored")

    def backup(self) -> Backup:
        """The database as it is now, what is queued not included."""
        return self._thread.call(self._core.backup)

    def restore(self, backup: Backup) -> None:
        """Stop, put the database back to what it was, start."""

        def put_back() -> None:
            self._core.queue.forget()
            self._core.restore(backup)

        self._end_process("server stopped for a restore", put_back)

    def stop_listening(self, *, drop_connections: bool = True) -> None:
        """From now on connecting is refused; by default the open connections are dropped as well."""
        self._thread.run(self._listener.close(keep_port=True))
        if drop_connections:
            self.drop_connections()

    def start_listening(self) -> None:
        """Listen again, on the same port."""
        self._thread.run(self._listener.open())

    def wait_for(self, predicate: Callable[[], object], timeout_s: float, what: str = "") -> None:
        """Wait until `predicate()` holds; looked at now and after every event. AssertionError if not."""
        if not self._core.changes.wait_until(predicate, timeout_s):
            raise AssertionError(f"not within {timeout_s} s: {what or 'the condition'}; {self.devices}")

    # --- on the loop

    def _add(self, name: str, credentials: Credentials) -> Device:
        self._thread.call(lambda: self._core.add_device(name, credentials))
        return self.device(name)

    def _set_limits(self, limits: RateLimits) -> None:
        for state in self._core.devices.values():
            state.limiter = DeviceLimiter(limits)

    def _pause(self, paused: bool) -> None:
        self._core.faults.stop_reading = paused
        for connection in self._core.open_connections:
            connection.pause(paused)

    def _each_connection(self, action: Callable[[Connection], None]) -> None:
        """Act on all connections there are, and return when every one of them is gone."""
        ended = self._thread.call(lambda: list(self._core.open_connections))
        for connection in ended:
            self._thread.call(functools.partial(action, connection))
        self._wait_gone(ended)

    def _wait_gone(self, connections: list[Connection]) -> None:
        still_open = self._core.open_connections
        self.wait_for(lambda: all(item not in still_open for item in connections), 10, "connections closed")

    def _end_process(self, reason: str, end_queue: Callable[[], object]) -> None:
        """Return when every connection is gone."""

        def end() -> list[Connection]:
            ended = list(self._core.open_connections)
            self._core.end_process(reason, end_queue)
            if self._rest is not None:
                self._rest.drop_connections()
            return ended

        self._wait_gone(self._thread.call(end))

    async def _shut_down(self) -> None:
        await self._listener.close(keep_port=False)
        if self._rest is not None:
            await self._rest.close()
        for connection in list(self._core.open_connections):
            connection.abort("server stopped")
        self._core.queue.drain()
        while self._core.open_connections:
            await asyncio.sleep(0)


def _rest_listener(core: Core, host: str, port: int) -> "RestListener":
    """The web framework is only needed, and only imported, with the REST API."""
    from teg.simulator.thingsboard.rest.accounts import Accounts
    from teg.simulator.thingsboard.rest.api import rest_api
    from teg.simulator.thingsboard.rest.listener import RestListener

    return RestListener(rest_api(core, Accounts()), host, port)
