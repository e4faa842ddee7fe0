"""Lines go to standard error, to the ring and to the server; secrets nowhere; and writing a line never fails."""

import logging
import threading
from collections.abc import Iterator

import pytest

from teg.adapters.log_handlers import MAX_LINE_CHARACTERS, RING_LINES, LogOutput

LOGGER = logging.getLogger("gateway.test")


@pytest.fixture
def output() -> Iterator[LogOutput]:
    found = LogOutput("INFO")
    found.install()
    yield found
    found.remove()


@pytest.fixture
def forwarded(output: LogOutput) -> list[tuple[int, str, str]]:
    lines: list[tuple[int, str, str]] = []
    output.forward_to(lambda *line: lines.append(line))
    return lines


def texts(lines: list[tuple[int, str, str]]) -> list[str]:
    return [text for _, _, text in lines]


# --- where lines go ----------------------------------------------------------------------------------------


def test_a_line_goes_everywhere(
    output: LogOutput, forwarded: list[tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    LOGGER.warning("disk %d %% full", 97)
    [(ts_ms, severity, text)] = forwarded
    assert (severity, text) == ("WARN", "disk 97 % full")
    assert ts_ms > 1_700_000_000_000
    [line] = output.recent(10)
    assert line.endswith("WARNING gateway.test: disk 97 % full")


def test_severities_are_thingsboards_words(output: LogOutput, forwarded: list[tuple[int, str, str]]) -> None:
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 35):
        LOGGER.log(level, "line")
    assert [severity for _, severity, _ in forwarded] == ["INFO", "WARN", "ERROR", "ERROR", "WARN"]


def test_debug_lines_are_kept_but_not_sent(output: LogOutput, forwarded: list[tuple[int, str, str]]) -> None:
    output.set_level("DEBUG")
    LOGGER.debug("detail")
    assert forwarded == []
    assert len(output.recent(10)) == 1


def test_the_level_holds_and_can_be_changed(output: LogOutput) -> None:
    LOGGER.debug("not yet")
    output.set_level("DEBUG")
    assert output.level == "DEBUG"
    LOGGER.debug("now")
    output.set_level("ERROR")
    LOGGER.warning("no more")
    assert [line[-3:] for line in output.recent(10)] == ["now"]


def test_libraries_chatter_is_left_out(output: LogOutput) -> None:
    for name in ("huey.consumer.Worker", "docker", "urllib3.connectionpool", "paho"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).error("trouble")
    assert [line.rpartition(": ")[2] for line in output.recent(10)] == ["trouble"] * 4


def test_the_consumers_own_handler_does_not_print_lines_twice() -> None:
    twice = logging.StreamHandler()
    logging.getLogger("huey").addHandler(twice)
    output = LogOutput("INFO")
    output.install()
    assert twice not in logging.getLogger("huey").handlers
    output.remove()


def test_what_was_there_before_comes_back() -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    output = LogOutput("ERROR")
    output.install()
    assert root.handlers != before
    output.remove()
    assert (root.handlers, root.level) == (before, level)


# --- the ring ----------------------------------------------------------------------------------------------


def test_the_ring_keeps_the_newest_lines(output: LogOutput) -> None:
    for number in range(RING_LINES + 50):
        LOGGER.info("line %d", number)
    lines = output.recent(RING_LINES * 2)
    assert len(lines) == RING_LINES
    assert lines[0].endswith("line 50")
    assert lines[-1].endswith(f"line {RING_LINES + 49}")


def test_some_lines_of_some_level(output: LogOutput) -> None:
    for number in range(6):
        LOGGER.log(logging.ERROR if number % 2 else logging.INFO, "line %d", number)
    assert [line[-1] for line in output.recent(2)] == ["4", "5"]
    assert [line[-1] for line in output.recent(2, logging.ERROR)] == ["3", "5"]
    assert output.recent(0) == []
    assert output.recent(-1) == []


def test_a_long_line_is_cut_in_the_ring(output: LogOutput) -> None:
    LOGGER.info("x" * 100_000)
    assert len(output.recent(1)[0]) == MAX_LINE_CHARACTERS


def test_the_ring_may_be_read_while_lines_come(output: LogOutput) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            LOGGER.info("line")

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            assert len(output.recent(RING_LINES)) <= RING_LINES
    finally:
        stop.set()
        for writer in writers:
            writer.join(20)


# --- secrets -----------------------------------------------------------------------------------------------


def everything(output: LogOutput, forwarded: list[tuple[int, str, str]], capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join([*output.recent(100), *texts(forwarded), capsys.readouterr().err])


def test_a_secret_is_hidden_wherever_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    output = LogOutput("INFO")
    output.install()
    forwarded: list[tuple[int, str, str]] = []
    output.forward_to(lambda *line: forwarded.append(line))
    output.add_secret("s3cr3t-token")
    LOGGER.info("token s3cr3t-token")
    LOGGER.info("as argument %s and %r", "s3cr3t-token", {"token": "s3cr3t-token"})
    try:
        raise ValueError("refused for s3cr3t-token")
    except ValueError:
        LOGGER.exception("failed")
    output.remove()
    said = everything(output, forwarded, capsys)
    assert "s3cr3t" not in said
    assert said.count("***") == 5 * 3, "twice in the trace"
    assert "ValueError: refused for ***" in said


def test_a_secret_that_begins_like_another(output: LogOutput, forwarded: list[tuple[int, str, str]]) -> None:
    for secret in ("abcd", "abcdefgh", "abcdefghijkl"):
        output.add_secret(secret)
    LOGGER.info("abcdefghijkl abcdefgh abcd")
    assert texts(forwarded) == ["*** *** ***"]


def test_what_is_too_short_to_be_a_secret_hides_nothing(
    output: LogOutput, forwarded: list[tuple[int, str, str]]
) -> None:
    for secret in (None, "", "a", "abc"):
        output.add_secret(secret)
    LOGGER.info("abc a")
    assert texts(forwarded) == ["abc a"]


def test_a_secret_may_be_added_while_lines_come(output: LogOutput) -> None:
    def add() -> None:
        for number in range(500):
            output.add_secret(f"secret-{number}")

    adder = threading.Thread(target=add)
    adder.start()
    while adder.is_alive():
        LOGGER.info("line")
    adder.join()


# --- nothing a line does may hurt whoever wrote it ---------------------------------------------------------


def test_a_line_with_wrong_arguments_hurts_nobody(output: LogOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    LOGGER.info("%d measurements", "many")
    LOGGER.info("next")
    assert output.recent(1)[0].endswith("next")


def test_a_forward_that_fails_hurts_nobody(output: LogOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def fail(*line: object) -> None:
        raise OSError("disk full")

    output.forward_to(fail)
    LOGGER.info("one")
    LOGGER.info("two")
    assert len(output.recent(10)) == 2


def test_a_line_written_while_forwarding_goes_no_further(output: LogOutput) -> None:
    lines: list[str] = []

    def forward(ts_ms: int, severity: str, text: str) -> None:
        lines.append(text)
        LOGGER.error("forwarding %s", text)

    output.forward_to(forward)
    LOGGER.info("one")
    LOGGER.info("two")
    assert lines == ["one", "two"]
    assert len(output.recent(10)) == 4, "but it is in the ring"


def test_other_threads_lines_are_forwarded_meanwhile(output: LogOutput) -> None:
    lines: list[str] = []

    def forward(ts_ms: int, severity: str, text: str) -> None:
        lines.append(text)

    output.forward_to(forward)
    threads = [threading.Thread(target=LOGGER.info, args=(f"line {number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines) == sorted(f"line {number}" for number in range(20))


def test_forwarding_can_be_ended(output: LogOutput, forwarded: list[tuple[int, str, str]]) -> None:
    output.forward_to(None)
    LOGGER.info("line")
    assert forwarded == []


def test_odd_text_is_no_problem(output: LogOutput, forwarded: list[tuple[int, str, str]]) -> None:
    for text in ("\ud800 half", "two\nlines", "\x00", "", "%s", "{}"):
        LOGGER.info(text)
    assert texts(forwarded) == ["\ud800 half", "two\nlines", "\x00", "", "%s", "{}"]
