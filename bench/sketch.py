"""The ideal sketch: the shortest loop that archives durably and publishes at QoS 1, with nothing else around it.

Read 500 inbox rows; insert them into an archive table and delete them from the inbox, each in a `synchronous=FULL`
transaction; join the stored JSON to arrays of at most 60 kB; publish over TLS at QoS 1 with a window of 20; mark the
rows after their PUBACK. It checks nothing, survives nothing, and is the speed limit of this machine.
"""

import socket
import sqlite3
import ssl
import threading
import time
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

WINDOW = 20
ROWS = 500
BYTES = 60_000


def drain(inbox_path: Path, archive_path: Path, host: str, port: int, ca_file: Path, token: str) -> int:
    """Empty the inbox into the archive and the server; returns the number of rows."""
    inbox, archive = _open(inbox_path), _open(archive_path)
    archive.execute("CREATE TABLE archive (id INTEGER PRIMARY KEY, message TEXT, published INTEGER DEFAULT 0)")
    flight = _Flight(host, port, ca_file, token)
    total = 0
    while rows := inbox.execute("SELECT id, message FROM messages ORDER BY id LIMIT ?", (ROWS,)).fetchall():
        with archive:
            archive.execute("BEGIN IMMEDIATE")
            archive.executemany("INSERT INTO archive (id, message) VALUES (?, ?)", rows)
        with inbox:
            inbox.execute("BEGIN IMMEDIATE")
            inbox.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
        for first, last, payload in _arrays(rows):
            flight.publish(payload, (first, last))
        _mark(archive, flight.acknowledged())
        total += len(rows)
    flight.finish()
    _mark(archive, flight.acknowledged())
    return total


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _arrays(rows: list[tuple[int, str]]) -> list[tuple[int, int, bytes]]:
    arrays: list[tuple[int, int, bytes]] = []
    texts: list[str] = []
    size, first = 2, rows[0][0]
    for row_id, text in rows:
        if texts and size + len(text) + 1 > BYTES:
            arrays.append((first, row_id - 1, ("[" + ",".join(texts) + "]").encode()))
            texts, size, first = [], 2, row_id
        texts.append(text)
        size += len(text) + 1
    arrays.append((first, rows[-1][0], ("[" + ",".join(texts) + "]").encode()))
    return arrays


def _mark(archive: sqlite3.Connection, ranges: list[tuple[int, int]]) -> None:
    if ranges:
        with archive:
            archive.execute("BEGIN IMMEDIATE")
            archive.executemany("UPDATE archive SET published = 1 WHERE id BETWEEN ? AND ?", ranges)


class _Flight:
    def __init__(self, host: str, port: int, ca_file: Path, token: str) -> None:
        self._slots = threading.Semaphore(WINDOW)
        self._by_mid: dict[int, tuple[int, int]] = {}
        self._acknowledged: list[int] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(token, "")
        self._client.tls_set_context(ssl.create_default_context(cafile=str(ca_file)))
        self._client.on_socket_open = _no_delay
        self._client.on_publish = self._on_publish
        self._client.connect(host, port)
        self._client.loop_start()

    def _on_publish(self, _: Any, __: Any, mid: int, *___: Any) -> None:
        self._acknowledged.append(mid)
        self._slots.release()

    def publish(self, payload: bytes, rows: tuple[int, int]) -> None:
        self._slots.acquire()
        self._by_mid[self._client.publish("v1/devices/me/telemetry", payload, qos=1).mid] = rows

    def acknowledged(self) -> list[tuple[int, int]]:
        mids, self._acknowledged = self._acknowledged, []
        return [self._by_mid.pop(mid) for mid in mids]

    def finish(self) -> None:
        for _ in range(WINDOW):
            self._slots.acquire()
        time.sleep(0)
        self._client.disconnect()
        self._client.loop_stop()


def _no_delay(_: Any, __: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
