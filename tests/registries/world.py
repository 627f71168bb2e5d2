"""A registry, two seats for processes that share it, a clock that only the test moves, and what must always hold.

A process pauses before every request, after every write and every reading of the alias, and while it sleeps. Time
passes as the test says, but no write of an alias is under way for longer than a request may be, which is what leases
are built on.
"""

import contextlib
import tempfile
from pathlib import Path
from unittest import mock

from small_mlflow import MODEL, URI, Crash, Lockstep, SmallClient, Store

from flataudit.errors import FlatauditError
from flataudit.journal import Journal
from flataudit.ledger import Ledger, LedgerDraft, LedgerEntry, operation_id
from flataudit.manifest import manifest_digest
from flataudit.registries.mlflow import client as small_talk
from flataudit.registries.mlflow import ledger_run, promotion
from flataudit.registries.mlflow.carrying import carried, resumed
from flataudit.registries.mlflow.entering import pointing_at, stamped
from flataudit.registries.mlflow.ledger_run import opened
from flataudit.registries.mlflow.promotion import Promoter

LEASE, REQUEST = 60.0, 10.0
VERSIONS = ("1", "2", "3", "4")


class World:
    """Version 1 is champion, and the ledger is empty."""

    def begin_world(self):
        self.scratch = contextlib.ExitStack()
        folder = Path(self.scratch.enter_context(tempfile.TemporaryDirectory()))
        self.clock, self.decisions, self.moment = 0.0, 0, 0
        self.seats, self.clients, self.sending = [None, None], [None, None], {}
        self.reads, self.changes = [{}, {}], {}
        patches = (
            mock.patch.object(promotion, "now", lambda: self.clock),
            mock.patch.object(promotion, "sleep", self.pause),
            mock.patch.object(promotion, "request_seconds", lambda uri: REQUEST),
            mock.patch.object(ledger_run.time, "sleep", self.pause),
            mock.patch.object(small_talk.time, "sleep", self.pause),
        )
        for patch in patches:
            self.scratch.enter_context(patch)
        self.store = Store(folder)
        for version in VERSIONS:
            self.store.register(version)
        self.store.aliases["champion"] = "1"
        self.state = [folder / "state0", folder / "state1"]
        self.book(0)

    def end_world(self):
        """All processes die, and what they left converges."""
        for seat in self.seats:
            if seat is not None and not seat.ended:
                seat.crash()
        self.everything_converges()
        self.scratch.close()

    def current(self):
        return next((index for index, seat in enumerate(self.seats) if seat is not None and seat.mine), None)

    def pause(self, seconds):
        index = self.current()
        if index is None:  # the test's own resume: nobody else moves
            self.clock += seconds
        else:
            until = self.clock + seconds
            while self.clock < until:
                self.seats[index].pause("sleep")

    def before(self, what, write):
        index = self.current()
        if index is None:
            return
        arguments = self.clients[index].arguments
        if what == "set_registered_model_alias":
            self.sending[index] = self.clock
        key = str(arguments[1]).partition(".")[0] if what == "log_param" else ""
        self.seats[index].pause(f"{what} {key}".strip())
        self.moment += 1
        if what == "set_registered_model_alias":
            self.judge(index, arguments[2])
        if what == "get_model_version_by_alias":
            self.reads[index]["alias"] = self.moment
        if what == "get_model_version_download_uri":
            self.reads[index][arguments[1]] = self.moment

    def after(self, what, write):
        index = self.current()
        if index is not None and (write or what == "get_model_version_by_alias"):
            self.sending.pop(index, None)
            self.seats[index].pause(f"after {what}")

    def judge(self, index, version):
        """A gate moves the alias now: it must have leave, must have looked, and what it saw must be so."""
        unfinished = self.ledger().unfinished()
        assert [entry.target.version for entry in unfinished] == [version]
        (entry,) = unfinished
        reads = self.reads[index]
        assert version in reads and "alias" in reads
        if reads["alias"] > self.changes.get("alias", 0):
            assert self.store.aliases.get("champion") in (entry.expected.version, version)
        if reads[version] > self.changes.get(version, 0):
            assert manifest_digest(self.store.folder / version) == entry.target.digest

    def book(self, index):
        self.clients[index] = SmallClient(self.store, self.before, self.after)
        return opened(self.clients[index], URI, MODEL, Journal(self.state[index]))

    def promoter(self, index):
        self.decisions += 1
        return Promoter(self.book(index), URI, LEASE, holder=f"{index}{self.decisions:04x}")

    def ledger(self):
        found = Ledger(model=MODEL)
        for run in self.store.runs.values():
            params = run.data.params
            entries = [LedgerEntry.model_validate_json(v) for k, v in params.items() if k.startswith("decision.")]
            endings = {int(k.split(".")[1]): v for k, v in params.items() if k.startswith("outcome.")}
            if entries:
                entries.sort(key=lambda entry: entry.sequence)
                found = Ledger(model=MODEL, entries=tuple(entries), endings=endings)
        return found

    def decide(self, index, challenger, kind):
        promoter = self.promoter(index)
        read = promoter.pointed("champion")
        champion = self.store.candidate(read.version) if read.version else None
        expected, target = pointing_at(champion), pointing_at(self.store.candidate(challenger))
        name = f"{index}-{self.decisions}"
        moves = kind == "promote" and read.version != challenger
        draft = LedgerDraft(
            model=MODEL,
            alias="champion",
            kind="promote" if moves else "hold",
            audit=name,
            operation=operation_id(MODEL, "champion", expected=expected, target=target, decision=name),
            created=stamped(),
            actor="a gate",
            expected=expected,
            target=target if moves else None,
        )
        return carried(promoter, draft)

    def seat(self, work):
        index = next(i for i, seat in enumerate(self.seats) if seat is None or seat.ended)
        self.look_at(index)
        self.reads[index] = {}
        self.seats[index] = Lockstep(lambda: work(index))
        return index

    def advance(self, index, seconds):
        """A request's worth of one process; no request is under way for longer than it may be."""
        if self.live(index):
            self.clock += min([seconds, *(sent + REQUEST - self.clock for sent in self.sending.values())])
            self.seats[index].step()
            self.look_at(index)

    def live(self, index):
        return self.seats[index] is not None and not self.seats[index].ended

    def look_at(self, index):
        seat = self.seats[index]
        if seat is not None and seat.ended and isinstance(seat.result, BaseException):
            assert isinstance(seat.result, FlatauditError | Crash), seat.result

    def advance_until(self, index, what):
        for _ in range(80):
            self.advance(index, 0.3)
            if self.live(index) and self.seats[index].waiting_for == what:
                break

    def kill(self, index):
        self.sending.pop(index, None)
        self.seats[index].crash()
        self.look_at(index)

    def check_ledger(self):
        ledger = self.ledger()
        assert ledger.problems() == ()
        assert len({entry.operation for entry in ledger.entries}) == len(ledger.entries)
        assert len(ledger.unfinished()) <= 1

    def vandalise(self, version, what):
        self.moment += 1
        self.changes[version if what == "bytes" else "alias"] = self.moment
        if what == "bytes":
            with (self.store.folder / version / "MLmodel").open("a") as file:
                file.write("#\n")
        elif what == "alias":
            self.store.aliases["champion"] = version
        else:
            self.store.aliases.pop("champion", None)

    def everything_converges(self):
        """All processes are gone: `resume` on both machines ends everything, and once more finds nothing to do."""
        for index in (0, 1):
            resumed(Promoter(self.book(index), URI, LEASE, holder=f"1a57{index}"))
        ledger = self.ledger()
        assert ledger.problems() == () and ledger.unfinished() == ()
        for index in (0, 1):
            assert resumed(Promoter(self.book(index), URI, LEASE, holder=f"a9a1{index}")) == []
            assert Journal(self.state[index]).begun_at(URI) == []
