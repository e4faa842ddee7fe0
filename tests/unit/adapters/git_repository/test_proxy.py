"""A remote by HTTP through the site's proxy, which wants a login."""

from pathlib import Path

import pytest

from teg.adapters.git_repository.process import Git
from tests.support.outside_programs import TinyProxy, tinyproxy

REMOTE = "http://repository.invalid/controller.git"


def asked(git: Git) -> str:
    return git.run("ls-remote", REMOTE, deadline_s=30).complaint


def test_it_is_asked_and_its_login_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with tinyproxy(tmp_path, "teg:s3cret") as proxy:
        complaint = asked(Git(proxy_url=proxy.url))
        assert f"GET {REMOTE}/info/refs" in proxy.log_path.read_text()
        assert "407" not in complaint, "the login was taken; that there is no such server is another matter"
        assert "407" in asked(Git(proxy_url=proxy.url.replace("teg:s3cret@", "")))
        assert_the_environment_wins(proxy, monkeypatch)


def assert_the_environment_wins(proxy: TinyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has set a proxy for Git alone keeps it."""
    before = proxy.log_path.read_text().count("GET http")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert asked(Git(proxy_url=proxy.url))
    assert proxy.log_path.read_text().count("GET http") == before
