"""Remote files: brings the files on disk to what the server wants, undoes local drift, and tells what is there.

`reconcile` re-reads the wanted state, `check` compares it with the disk again; both may run at any time, twice, and
after any crash. What every attribute means to an operator: docs/files.md.
"""

import logging
import threading

from teg.domain.concurrency import SingleFlight
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.files.apply import Disk, Step, Writer, applied_entry, plan_file
from teg.domain.files.commit_confirm import Confirmation
from teg.domain.files.definitions import Definition
from teg.domain.files.desired import CONTENTS_A_REQUEST, Answer, Content, DesiredFiles, KeptAnswer, ask, plan_wanted
from teg.domain.files.memory import Remembered, Restarts
from teg.domain.files.ports import FileState, FileStore
from teg.domain.files.reports import FILE_HASHES, Snapshot, Telling
from teg.domain.ports import AttributeSource, Clock, Controller, Heartbeat, Report, State

logger = logging.getLogger("gateway.files")

CHECK_INTERVAL_S = 30.0


class Files:
    """The remote files of this device. Safe to call from several workers."""

    def __init__(
        self,
        *,
        source: AttributeSource,
        report: Report,
        state: State,
        store: FileStore,
        clock: Clock,
        heartbeat: Heartbeat,
        controller: Controller,
        data_path: str,
    ) -> None:
        """`data_path` is what `$DATA_PATH` in a definition stands for."""
        self._source = source
        self._clock = clock
        self._controller = controller
        self._data_path = data_path
        self._asking = SingleFlight()
        self._asking.want()
        #: Guards everything below; held for disk and State, never while the network is waited for.
        self._lock = threading.Lock()
        self._opened = False
        self._kept = KeptAnswer(state)
        self._applied = Remembered(state, "files/applied")
        self._restarts = Restarts(state)
        self._confirmation = Confirmation(
            state=state,
            store=store,
            report=report,
            clock=clock,
            heartbeat=heartbeat,
            restarts=self._restarts,
            applied=self._applied,
        )
        self._disk = Disk(store)
        self._writer = Writer(self._disk, self._confirmation, self._restarts, self._applied, clock)
        self._telling = Telling(report, state, clock)
        self._answer = Answer(None, {}, None)
        self._wanted = DesiredFiles()
        self._looks: dict[str, Snapshot] = {}
        self._watched = 0
        self._errors: dict[str, str] = {}
        self._restart_errors: dict[str, str] = {}
        self._contents_a_request = CONTENTS_A_REQUEST
        self._next_s = float("-inf")

    # --- entry points --------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Read the wanted state from the server and apply it. A call during another one makes that one ask again.

        Raises:
            Unavailable: no answer; nothing was changed.
        """
        self._asking.run(self._reconcile)

    def check(self) -> None:
        """Compare the disk with the wanted state last heard, also without a server, and end trials whose time is up."""
        self._ask_for_trials()
        with self._lock:
            self._open()
            self._settle()

    def init(self) -> None:
        """RPC `init_files`: publish empty FILE_HASHES, then tell everything anew; the next check re-reads the rest."""
        with self._lock:
            self._open()
            self._telling.forget()
            self._next_s = float("-inf")
        self._asking.want()

    def restart_controller(self) -> None:
        """Do the restart that changed files asked for, once for all of them.

        Raises:
            Unavailable: the controller cannot be restarted now; it stays due.
        """
        if not (due := self._restarts.due()):
            return
        error = ""
        try:
            self._controller.restart(f"remote file changed: {', '.join(sorted(due))}"[:200])
        except Unavailable as reason:
            self._restart_errors = dict.fromkeys(due, f"written; the controller is not restarted yet: {reason}")
            raise
        except Refused as reason:
            error = f"written, but the controller was not restarted: {reason}"
        self._restarted(due, error)

    @property
    def stale(self) -> bool:
        """True until the server's newest answer has been applied."""
        return self._asking.wanted

    @property
    def restart_due(self) -> bool:
        return bool(self._restarts.due())

    def take_due(self) -> bool:
        """True once per time that a check is due; cheap enough for every second. Without files nothing is ever due."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s or not (self.stale or self._has_work()):
            return False
        self._next_s = now_s + CHECK_INTERVAL_S
        return True

    def _has_work(self) -> bool:
        return bool(self._wanted.definitions or self._confirmation.running() or self.restart_due) or not self._opened

    # --- asking the server ---------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        begun_s = self._clock.monotonic_s()
        try:
            answer = ask(self._source, self._data_path, self._contents_a_request)
        except NotConnected:
            raise
        except Unavailable:
            self._contents_a_request = max(1, self._contents_a_request // 2)
            raise
        self._contents_a_request = min(CONTENTS_A_REQUEST, self._contents_a_request * 2)
        self._adopt(answer, begun_s)

    def _adopt(self, answer: Answer, begun_s: float) -> None:
        """Apply a new answer, or go on with the last good one when `FILES` made no sense."""
        with self._lock:
            self._open()
            self._confirmation.answered(begun_s)
            self._telling.heard(answer.hashes, begun_s)
            self._telling.definitions(answer.problem)
            if not answer.problem:
                self._kept.save(answer, self._answer)
                self._answer = answer
                self._wanted = plan_wanted(answer, self._data_path)
            self._settle()

    def _ask_for_trials(self) -> None:
        """Any answered request will do: it shows that the link still works with the new content."""
        if not self._confirmation.wants_answer():
            return
        begun_s = self._clock.monotonic_s()
        try:
            self._source.request_attributes([FILE_HASHES], [])
        except (Unavailable, Refused) as reason:
            logger.info("no answer for a file on trial: %s", reason)
        else:
            self._confirmation.answered(begun_s)

    # --- applying ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read what an earlier process left, and remove what it was interrupted in, before anything is written."""
        if self._opened:
            return
        self._answer = self._kept.load()
        self._wanted = plan_wanted(self._answer, self._data_path)
        self._applied.load()
        self._restarts.load()
        self._telling.load()
        self._confirmation.load()
        paths = {definition.path for definition in self._wanted.definitions.values()}
        for path in paths | {trial.path for trial in self._confirmation.running()}:
            self._clean(path)
        self._opened = True

    def _clean(self, path: str) -> None:
        try:
            self._disk.store.clean(path)
        except (Refused, Unavailable) as reason:
            logger.debug("leftovers beside %s were not looked for: %s", path, reason)

    def _settle(self) -> None:
        """One pass over all files, then one report; what is wrong with one file costs only that file."""
        self._looks = {}
        self._errors = dict(self._wanted.problems)
        self._errors |= self._confirmation.judge()
        for definition in self._wanted.definitions.values():
            try:
                self._settle_file(definition)
            except (Refused, Unavailable) as reason:
                self._errors.setdefault(definition.key, str(reason))
        self._forget_the_rest()
        self._telling.tell(self._looks, self._restart_errors | self._errors, self._with_content)
        self._watched, self._looks = len(self._looks), {}
        self._next_s = self._next_check_s()

    def _settle_file(self, definition: Definition) -> None:
        key = definition.key
        content = self._wanted.contents.get(key)
        seen = self._disk.look(definition.path)
        self._looks[key] = self._as_look(definition, content, seen)
        digest, reason = self._confirmation.refused.get(key) or (None, "")
        step = plan_file(definition, content, seen, digest)
        if step is not Step.WRITE:
            self._writer.failures.clear(key)
        if step is Step.REFUSE:
            self._errors[key] = reason
        elif content is not None and step is Step.KEEP:
            self._applied.put(key, applied_entry(definition, content))
        elif content is not None and step is Step.WRITE:
            try:
                self._writer.write(definition, content, seen)
            finally:  # also after a failure: what is told is what is there now
                self._looks[key] = self._as_look(definition, content, self._disk.look(definition.path))

    def _as_look(self, definition: Definition, content: Content | None, seen: FileState | None) -> Snapshot:
        """The new version is claimed only when its bytes are on disk, or when nothing is wanted there."""
        ours = content is not None and seen is not None and seen.md5 == content.md5
        mirrored = content is None and definition.key not in self._wanted.problems
        if ours or mirrored:
            return Snapshot(definition, seen, definition.write_version, ours)
        applied = self._applied.get(definition.key) or {}
        still_there = seen is not None and applied.get("hash") == seen.md5
        return Snapshot(definition, seen, applied.get("write_version") if still_there else None, ours)

    def _with_content(self, look: Snapshot) -> Snapshot | None:
        """Read again when the look was only a stat; hash and content then come from the same bytes."""
        if look.seen is None or look.seen.content is not None:
            return look
        try:
            seen = self._disk.read(look.definition.path)
        except (Refused, Unavailable) as reason:
            self._errors.setdefault(look.definition.key, str(reason))
            return None
        return self._as_look(look.definition, self._wanted.contents.get(look.definition.key), seen)

    def _forget_the_rest(self) -> None:
        keys = {*self._wanted.definitions, *(trial.key for trial in self._confirmation.running())}
        self._applied.keep_only(keys)
        self._writer.failures.keep_only(keys)

    def _next_check_s(self) -> float:
        now_s = self._clock.monotonic_s()
        retry_s = max(now_s + 1, self._writer.failures.next_s())
        return min(now_s + CHECK_INTERVAL_S, retry_s, self._confirmation.next_look_s())

    def _restarted(self, due: dict[str, int], error: str) -> None:
        with self._lock:
            self._restart_errors = dict.fromkeys(due, error) if error else {}
            self._restarts.done(due)
            if not error:
                for key in due:
                    self._confirmation.controller_restarted(key)
