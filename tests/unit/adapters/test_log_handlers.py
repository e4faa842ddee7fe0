"""Lines go to standard error, to the ring and to the server; secrets nowhere; and writing a line never fails."""

import io
import logging
import threading
import unicodedata
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.log_handlers import (
    BURST_LINES,
    MAX_LINE_CHARACTERS,
    RING_LINES,
    SECONDS_A_LINE,
    FloodLimit,
    LogOutput,
)

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


def test_the_ring_keeps_the_newest_lines(output: LogOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teg.adapters.log_handlers.BURST_LINES", RING_LINES * 2)
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
    for text in ("\ud800 half", "", "%s", "{}"):
        LOGGER.info(text)
    assert texts(forwarded) == ["\\ud800 half", "", "%s", "{}"]


# --- nobody writes our lines -------------------------------------------------------------------------------

FORGED = "2026-01-01 00:00:00,000 INFO    gateway: all is well"


@given(st.text(max_size=60), st.text(max_size=60))
def test_one_record_is_one_line_of_visible_characters(start: str, end: str) -> None:
    """Whatever is in a method's name, a file's name or a program's output."""
    forwarded: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr("sys.stderr", stream)
        output = LogOutput("INFO")
        output.install()
        output.forward_to(lambda *line: forwarded.append(line[2]))
        try:
            LOGGER.warning("RPC %s answered", f"{start}\n{FORGED}\r\x1b[2K\u2028\u202e{end}")
        finally:
            output.remove()
    [line] = output.recent(10)
    [sent] = forwarded
    for text in (line, sent, stream.getvalue().removesuffix("\n")):
        assert len(text.splitlines()) == 1
        assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
        assert "\u202e" not in text


def test_an_exceptions_text_forges_nothing_either(output: LogOutput) -> None:
    try:
        raise ValueError(f"x\n{FORGED}")
    except ValueError:
        LOGGER.exception("a message could not be enqueued")
    [line] = output.recent(10)
    assert "ValueError" in line and "Traceback" in line and len(line.splitlines()) == 1


def test_secrets_are_recognised_by_their_form_as_well(
    output: LogOutput, forwarded: list[tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    LOGGER.warning("the queue redis://:%s@localhost:6379 is away", "hunter2")
    LOGGER.warning("refused %s", {"psk": "hunter2"})
    LOGGER.warning("ran %s", "sshpass -phunter2 ssh pi@x")
    said = everything(output, forwarded, capsys)
    assert "hunter2" not in said and "localhost:6379" in said and "ssh pi@x" in said


def test_a_flood_from_one_place_is_cut_and_counted_and_others_are_heard() -> None:
    now_s = [100.0]
    limit = FloodLimit(lambda: now_s[0])

    def record(line: int, text: str) -> logging.LogRecord:
        return logging.LogRecord("gateway.rpc", logging.WARNING, "dispatcher.py", line, text, (), None)

    def kept(line: int) -> list[str]:
        found = [record(line, f"call {number}") for number in range(1000)]
        return [entry.getMessage() for entry in found if limit.filter(entry)]

    assert kept(1) == [f"call {number}" for number in range(BURST_LINES)]
    assert len(kept(2)) == BURST_LINES
    now_s[0] += SECONDS_A_LINE
    assert kept(1) == [f"call 0 ({1000 - BURST_LINES} lines like this one were left out)"]
    same = record(3, "x")
    assert limit.filter(same) and limit.filter(same)  # the second handler hears the same decision


def test_refused_calls_cannot_fill_the_log(output: LogOutput) -> None:
    for number in range(10 * BURST_LINES):
        LOGGER.warning("RPC %d refused", number)
    assert BURST_LINES <= len(output.recent(RING_LINES)) <= BURST_LINES + 10


# --- layouts of standard error -----------------------------------------------------------------------------


def written(layout: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    output = LogOutput("DEBUG", layout)
    output.add_secret("hunter2")
    output.install()
    try:
        LOGGER.debug("quiet")
        LOGGER.error("token hunter2\n<0>gateway.test: forged")
        try:
            raise ValueError("of two\nlines")
        except ValueError:
            LOGGER.exception("it failed")
    finally:
        output.remove()
    return capsys.readouterr().err.splitlines()


def test_for_the_journal_each_line_begins_with_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written("journal", capsys)
    assert [line[:16] for line in lines] == ["<7>gateway.test:", "<3>gateway.test:", "<3>gateway.test:"]
    assert "hunter2" not in str(lines)


def test_as_json_each_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [orjson.loads(line) for line in written("json", capsys)]
    assert [line["level"] for line in lines] == ["DEBUG", "ERROR", "ERROR"]
    assert all(line.keys() == {"ts_ms", "level", "logger", "message"} for line in lines)
    assert "ValueError" in lines[2]["message"]
    assert "hunter2" not in str(lines)
