"""The settings themselves: valid, spelled right, complete, and what of the reference's they leave behind."""

from collections.abc import Iterable, Iterator

from teg.console.checks.finding import Finding, Site, fine, problem, skipped, warning
from teg.domain.errors import Refused
from teg.domain.telemetry.report_rules import parse_report
from teg.settings import env_file, quoted_variables


def check_names(site: Site) -> Iterator[Finding]:
    yield from odd_settings(site.settings.notices)
    if not site.settings.notices:
        yield fine("settings", "valid, every name is known")


def odd_settings(notices: Iterable[str]) -> Iterator[Finding]:
    for notice in notices:
        yield warning("settings", notice, f"correct it in the environment or in {env_file()}")


def check_quotes(site: Site) -> Iterator[Finding]:
    """Docker's --env-file and systemd's Environment= keep what a shell would take off."""
    quoted = quoted_variables()
    for name in quoted:
        yield warning("quotes", f"the value of {name} begins and ends with a quote", "remove the quotes")
    if not quoted:
        yield fine("quotes", "no value has quotes in it")


def check_provisioning(site: Site) -> Iterator[Finding]:
    key, secret = site.settings.provision_key, site.settings.provision_secret
    if bool(key) != bool(secret):
        missing = "SECRET" if key else "KEY"
        remedy = f"set THINGSBOARD_PROVISION_DEVICE_{missing} too, or neither"
        yield problem("provisioning", "only half of the pair of key and secret is set", remedy)
    elif key:
        yield fine("provisioning", f"key and secret are set, for device '{site.settings.device_name}'")
    else:
        yield skipped("provisioning", "not used")


def check_env_file(site: Site) -> Iterator[Finding]:
    path = env_file()
    if not path.exists():
        yield skipped("settings file", f"there is no {path}: the environment alone counts")
    elif path.stat().st_mode & 0o007 and site.settings.provision_secret:
        yield warning("settings file", f"everybody can read {path}, with its secret", f"chmod 640 {path}")
    else:
        yield fine("settings file", str(path))


def check_report(site: Site) -> Iterator[Finding]:
    try:
        rules = parse_report(site.settings.report)
    except Refused as problems:
        yield problem("report", str(problems), "see docs/thin-links.md; the gateway does not start with it")
        return
    if rules:
        yield fine("report", f"{len(rules.entries)} entries: {site.settings.report}")
    else:
        yield skipped("report", "every record goes to the server (TEG_REPORT is not set)")


def check_run_command(site: Site) -> Iterator[Finding]:
    if site.settings.rpc_run_command == "on":
        remedy = "name an allow-list file instead, unless that is meant"
        yield warning("remote commands", "the server may run any command here (TEG_RPC_RUN_COMMAND=on)", remedy)
    else:
        yield fine("remote commands", "off" if site.settings.rpc_run_command == "off" else "those of the list")
