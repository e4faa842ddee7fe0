"""Names that are ours, origins that are ours: against pages that make a browser ask us."""

import socket

import pytest

from teg.console.page.guards import HEADERS, Names, same_origin

OWN = socket.gethostname()
OURS = [
    "127.0.0.1:8765",
    "localhost",
    "LOCALHOST:1",
    "[::1]:8765",
    "192.168.1.7",
    "[fe80::1]",
    f"{OWN}:8765",
    f"{OWN}.local",
]
OURS += ["teg.example.org", "teg.example.org.", "TEG.example.org:443", "roof"]
FOREIGN = [
    "",
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example:8765",
    "teg.example.org.evil.example",
    "x:y:z",
]
FOREIGN += [
    "127.0.0.1 evil",
    "a/b",
    "127.0.0.1:8765@evil.example",
    "[::1",
    "evil.example#localhost",
    "local host",
    "\u200blocalhost",
]


@pytest.mark.parametrize("host", OURS)
def test_our_names(host: str) -> None:
    assert Names("teg.example.org:8765", frozenset({"roof"})).ours(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names(host: str) -> None:
    assert not Names("127.0.0.1:8765", frozenset()).ours(host)


@pytest.mark.parametrize(
    ("origin", "site", "good"),
    [
        ("http://10.0.0.7:8765", "same-origin", True),
        ("https://10.0.0.7:8765", "", True),
        ("", "", True),
        ("", "cross-site", False),
        ("", "same-site", False),
        ("", "none", False),
        ("null", "", False),
        ("http://10.0.0.7:8080", "", False),
        ("http://10.0.0.7", "", False),
        ("http://evil.example", "same-origin", False),
        ("http://10.0.0.7:8765.evil.example", "", False),
    ],
)
def test_where_a_change_is_asked_for(origin: str, site: str, good: bool) -> None:
    assert same_origin(origin, site, "10.0.0.7:8765") is good


def test_what_every_answer_says() -> None:
    said = dict(HEADERS)
    policy = said["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert said["X-Frame-Options"] == "DENY"
    assert not [name for name in said if name.startswith("Access-Control")]
