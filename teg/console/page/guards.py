"""What every request meets first, and what every answer carries: names, origins, methods, headers.

A browser is a confused deputy: any page it shows can make it ask us. A name that is not ours is therefore refused (DNS
rebinding), what changes something needs a token that only our own page can read, and nobody may frame the page.
"""

import ipaddress
import re
import socket

#: Everything the page needs comes from the gateway itself; text never becomes markup or script.
HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Cache-Control", "no-store"),
)


class Names:
    """Names that the page answers to: addresses (no name can be bent to one), this machine's own, and the set ones."""

    def __init__(self, address: str, more: frozenset[str]) -> None:
        own = socket.gethostname().lower()
        configured = address.rpartition(":")[0].lower()
        self._known = {"localhost", own, f"{own}.local", configured, *more}

    def ours(self, host: str) -> bool:
        """`host` is the header `Host`."""
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", host)
        if found is None:
            return False
        name = found[1].lower().rstrip(".")
        return name in self._known or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def same_origin(origin: str, site: str, host: str) -> bool:
    """`origin` and `site` are the headers Origin and Sec-Fetch-Site, empty where the client sent none."""
    if site not in ("", "same-origin"):
        return False
    return not origin or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
