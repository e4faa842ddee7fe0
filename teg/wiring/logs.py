"""Where the gateway's own log lines go, from the first moment on."""

import logging
from contextlib import ExitStack

from teg.adapters.log_handlers import LogOutput
from teg.domain.ports import Clock
from teg.domain.rpc.log_level import LogLevel
from teg.settings import Settings

logger = logging.getLogger("gateway")


def install_log_output(settings: Settings, stack: ExitStack) -> LogOutput:
    output = LogOutput(settings.log_level)
    output.add_secret(settings.provision_secret)
    output.install()
    stack.callback(output.remove)
    for notice in settings.notices:
        logger.warning("settings: %s", notice)
    return output


def build_log_level(settings: Settings, output: LogOutput, clock: Clock) -> LogLevel:
    return LogLevel(output.set_level, settings.log_level, clock)
