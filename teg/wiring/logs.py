"""Where the gateway's own log lines go, from the first moment on."""

import logging
import os
from contextlib import ExitStack

from teg.adapters.log_handlers import LogOutput
from teg.domain.ports import Clock
from teg.domain.rpc.log_level import LogLevel
from teg.settings import Settings, environment_variable

logger = logging.getLogger("gateway")


def install_log_output(settings: Settings, stack: ExitStack) -> LogOutput:
    in_journal = _is_journal(environment_variable("JOURNAL_STREAM"))
    output = LogOutput(
        settings.log_level, "journal" if settings.log_format == "text" and in_journal else settings.log_format
    )
    output.add_secret(settings.provision_secret)
    output.add_secret(settings.console_password)
    output.install()
    stack.callback(output.remove)
    for notice in settings.notices:
        logger.warning("settings: %s", notice)
    return output


def _is_journal(stream: str | None) -> bool:
    """Whether systemd reads our standard error: it names the stream's device and inode (systemd.exec(5))."""
    found = os.fstat(2)
    return stream == f"{found.st_dev}:{found.st_ino}"


def build_log_level(settings: Settings, output: LogOutput, clock: Clock) -> LogLevel:
    return LogLevel(output.set_level, settings.log_level, clock)
