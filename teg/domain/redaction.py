"""Keeps secrets out of logs, journal, audit and error texts: what looks like one by its name or form becomes `***`.

Names decide first (fields, variables, flags, headers), then forms (passwords in URLs, keys, tokens of known makes).
When in doubt a word too many is hidden. Every pattern is bounded, so no text can make this slow.
"""

import re
from typing import Any

import orjson

MASK = "***"
MAX_DEPTH = 16
MAX_TEXT = 2_000

_NAME = (
    r"token|passw|passphrase|passcode|pwd|psk|secret|key|credential|authori[sz]ation|bearer|cookie|private|community"
    r"|(?<![a-z])(?:pass|pin|otp|auth)(?![a-z])"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_SECRET_WORD = re.compile(rf"-{{0,2}}[\w-]{{0,60}}(?:{_NAME})[\w-]{{0,60}}", re.IGNORECASE)
#: A value in quotes ends with them, any other with the line.
_ASSIGNED = re.compile(
    rf"((?:{_NAME})[\w-]{{0,40}}[\"'\]]{{0,2}}\s{{0,9}}[=:]\s{{0,9}})"
    r"(?:\\{0,3}([\"'])[^\n]{0,500}?\2(?=\s{0,3}[\s,;&}\])\"'\\]|\Z)|\S[^\n]{0,8000})",
    re.IGNORECASE,
)
_HEADER = re.compile(r"((?:authorization|cookie)[\"']?\s{0,9}[=:])[^\n]{0,4000}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s:@/\"']{0,100}:)(?!\d{1,5}(?:[/\s?#\"']|\Z))[^\s\"']{1,300}@")
_URL_TOKEN = re.compile(r"(://)[^\s:@/\"']{16,300}@")
_FORMS = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,8000}(?:-----END[A-Z -]{0,40}-----)?"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abpr]-|AKIA|sk-)[\w-]{8,300}"
    r"|\beyJ[\w-]{5,2000}\.[\w-]{5,2000}(?:\.[\w-]{0,2000})?"
    r"|\b(?:Bearer|Basic|Digest) +(?=\S{0,100}[A-Z0-9=._-])[\w.~+/=-]{6,2000}"
)
#: `-pSECRET`, and `-u user:secret` in the spellings of curl and its kin.
_JOINED_FLAG = re.compile(r"((?<![^\s\"'\[,])-[pP])(?=\S)(?!\s)[^\s\"',\]]{1,300}")
_USER_FLAG = re.compile(
    r"((?<![^\s\"'\[,])(?:-[uU]|--(?:proxy-)?user(?:pwd)?)[\"',=\s]{0,4}[^\s:\"',]{0,100}:)[^\s\"',\]]{1,300}"
)
#: Programs that take a secret as the word after a short flag.
_PROGRAM = re.compile(
    r"\b(?:sshpass|mysql\w*|mariadb[\w-]*|mosquitto_\w+|mongo\w*|redis-cli|ldap\w+|docker|podman|skopeo|psql|curl|wget"
    r"|htpasswd|zip|unzip|7z[ar]?|openssl|smbclient|snmp\w+|ipmitool|xfreerdp|lftp|wpa_\w+|nmcli|iwconfig)\b"
)
_SHORT_FLAG = re.compile(r"((?<![^\s\"'\[,])-[pPawWzk][\"',\s]{1,4})[^\s\"',\]-][^\s\"',\]]{0,300}")
_NAMED_WORD = re.compile(
    rf"((?<![^\s\"'\[,])-{{0,2}}[\w-]{{0,40}}(?:{_NAME})[\w-]{{0,40}}\s{{1,9}})[^\s=:*]\S{{0,300}}", re.IGNORECASE
)
_SHORT_FLAGS = ("-p", "-P", "-a", "-w", "-W", "-z", "-k")


def redacted(value: Any, depth: int = 0) -> Any:
    """`value` with secrets replaced; deeper than `MAX_DEPTH` levels nothing is shown at all."""
    if isinstance(value, str):
        return redacted_command(value)
    if not isinstance(value, (dict, list)):
        return value
    if depth == MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {
            redacted_command(str(key)): MASK if _SECRET_NAME.search(str(key)[:200]) else redacted(inner, depth + 1)
            for key, inner in value.items()
        }
    return _redacted_list(value, depth)


def _redacted_list(values: list[Any], depth: int) -> list[Any]:
    """A command's arguments, perhaps: the word after one that names a secret is one."""
    program = bool(values) and isinstance(values[0], str) and _PROGRAM.search(values[0][-100:]) is not None
    found: list[Any] = []
    for index, value in enumerate(values):
        before = values[index - 1] if index else None
        if isinstance(before, str) and _announces_secret(before, program):
            found.append(MASK)
        elif isinstance(before, str) and isinstance(value, str) and before in ("-u", "-U", "--user", "--proxy-user"):
            user, colon, _ = value[:MAX_TEXT].partition(":")
            found.append(f"{user}:{MASK}" if colon else redacted_command(value))
        else:
            found.append(redacted(value, depth + 1))
    return found


def _announces_secret(word: str, program: bool) -> bool:
    return (program and word in _SHORT_FLAGS) or _SECRET_WORD.fullmatch(word[:200]) is not None


def redacted_text(text: str, limit: int = MAX_TEXT) -> str:
    """Prose and log lines: only the first `limit` characters are looked at and returned."""
    text = _FORMS.sub(MASK, text[:limit])
    if _PROGRAM.search(text):
        text = _SHORT_FLAG.sub(rf"\1{MASK}", text)
    text = _URL_TOKEN.sub(rf"\1{MASK}@", _URL_PASSWORD.sub(rf"\1{MASK}@", text))
    text = _ASSIGNED.sub(rf"\1{MASK}", _HEADER.sub(rf"\1 {MASK}", text))
    return _USER_FLAG.sub(rf"\1{MASK}", _JOINED_FLAG.sub(rf"\1{MASK}", text))


def redacted_command(text: str) -> str:
    """As `redacted_text`, and in what may be a command line also the word after one that names a secret."""
    return _NAMED_WORD.sub(rf"\1{MASK}", redacted_text(text))


def redacted_json(value: Any) -> str:
    """One line of JSON for the journal, cut to `MAX_TEXT` characters."""
    text = orjson.dumps(redacted(value), option=orjson.OPT_NON_STR_KEYS).decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
