"""Processes that die before and after every write, of the registry and of the journal; then `resume`."""

import os
import shutil
import signal

import pytest
from small_mlflow import MODEL, URI, Crash, SmallClient, Store

from flataudit.errors import FlatauditError
from flataudit.journal import Journal
from flataudit.registries.mlflow import MlflowRegistry
from flataudit.registries.mlflow.carrying import carried, resumed
from flataudit.registries.mlflow.client import connect
from flataudit.registries.mlflow.ledger_run import LedgerRun, located, opened
from flataudit.registries.mlflow.promotion import Promoter

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


class Fuse:
    """Counts writes, and raises before or after a chosen one."""

    def __init__(self, at=None, *, after=False):
        self.at, self.after_it, self.count, self.names = at, after, 0, []

    def before(self, what, write):
        if write:
            self.count += 1
            self.names.append(what)
            self._burn(what, after=False)

    def after(self, what, write):
        if write:
            self._burn(what, after=True)

    def _burn(self, what, *, after):
        if self.count == self.at and after == self.after_it:
            raise Crash(what)


class FusedJournal(Journal):
    """A journal whose writes count too."""

    fuse = Fuse()

    def _write(self, kind, name, text):
        type(self).fuse.before(f"journal {kind}", True)
        super()._write(kind, name, text)
        type(self).fuse.after(f"journal {kind}", True)

    def end(self, operation):
        type(self).fuse.before("journal end", True)
        super().end(operation)
        type(self).fuse.after("journal end", True)


def promoter_of(store, folder, fuse=None):
    fuse = fuse or Fuse()
    FusedJournal.fuse = fuse
    client = SmallClient(store, fuse.before, fuse.after)
    return Promoter(opened(client, URI, MODEL, FusedJournal(folder)), URI, 60.0, holder=f"h{fuse.count}{fuse.at}")


@pytest.fixture(autouse=True)
def time_passes(monkeypatch):
    """Leases run out while nobody waits for them."""
    from flataudit.registries.mlflow import promotion

    clock = [0.0]
    monkeypatch.setattr(promotion, "now", lambda: clock[0])
    monkeypatch.setattr(promotion, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))


def first_promotion(folder, promotion, fuse):
    """A fresh registry, and the first decision on its model until it ends or the fuse burns."""
    folder.mkdir()
    store = Store(folder)
    champion, challenger = store.register("1"), store.register("2")
    store.aliases["champion"] = "1"
    draft = promotion(MODEL, challenger, champion, "the audit")
    try:
        carried(promoter_of(store, folder / "state", fuse), draft)
    except Crash:
        pass
    return store, draft


def writes(tmp_path, promotion):
    fuse = Fuse()
    first_promotion(tmp_path / "whole", promotion, fuse)
    return fuse.names


def test_what_is_written_and_in_which_order(tmp_path, promotion):
    """The intent, then the entry, then leave, then the alias, then the ending, then the end of the intent."""
    found = writes(tmp_path, promotion)
    ending = ["journal intents", "log_param", "journal ledgers", "log_param", "set_registered_model_alias", "log_param"]
    assert found[-8:] == [*ending, "set_model_version_tag", "journal end"]
    assert len(found) == 16


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 17))
def test_every_crash_converges(tmp_path, promotion, at, after):
    fuse = Fuse(at, after=after)
    store, draft = first_promotion(tmp_path / "crashed", promotion, fuse)
    assert fuse.count == at
    state = tmp_path / "crashed" / "state"
    begun = bool(list(state.glob("intents/*.json"))) or "log_param" in fuse.names[8:]
    found = resumed(promoter_of(store, state))
    book = promoter_of(store, state).book
    ledger = book.read()
    assert ledger.problems() == () and ledger.unfinished() == ()
    assert store.aliases["champion"] == ("2" if begun else "1") == ledger_says(ledger)
    assert all(one.ending == "done" for one in found)
    again = Fuse()
    assert resumed(promoter_of(store, state, again)) == [] and again.names == []
    carried(promoter_of(store, state), draft)  # the pipeline runs the step again
    ledger = book.read()
    assert [(entry.kind, ledger.endings[entry.sequence]) for entry in ledger.entries] == [("promote", "done")]
    assert store.aliases["champion"] == "2" == store_tag(store)
    assert not list(state.glob("intents/*.json"))


def ledger_says(ledger):
    champion = ledger.champion("champion")
    return champion.version if champion else "1"


def store_tag(store):
    return "2" if store.versions["2"].tags["flataudit.decision"] == "promote" else None


@pytest.mark.parametrize("at", [10, 11, 12, 13])
def test_another_machine_finishes_what_a_dead_one_left(tmp_path, promotion, at):
    """It has no journal of it, only the ledger; with a claim in place it waits the lease out."""
    store, _ = first_promotion(tmp_path / "crashed", promotion, Fuse(at, after=True))
    (one,) = resumed(promoter_of(store, tmp_path / "other machine"))
    assert (one.ending, store.aliases["champion"]) == ("done", "2")


def test_the_next_gate_finishes_it_before_it_decides(tmp_path, promotion):
    store, _ = first_promotion(tmp_path / "crashed", promotion, Fuse(13, after=False))
    third = store.register("3")
    other = promoter_of(store, tmp_path / "other machine")
    with pytest.raises(FlatauditError, match="got version 2 when"):
        carried(other, promotion(MODEL, third, store.candidate("1"), "compared with the old champion"))
    assert store.aliases["champion"] == "2"
    carried(other, promotion(MODEL, third, store.candidate("2"), "compared with the new champion"))
    assert store.aliases["champion"] == "3"
    assert [entry.kind for entry in other.book.read().entries] == ["promote", "conflict", "promote"]


@pytest.mark.parametrize(("at", "entered"), [(9, False), (13, True)], ids=["intent", "entry"])
def test_what_is_too_old_is_abandoned(tmp_path, promotion, monkeypatch, at, entered):
    from datetime import timedelta

    from flataudit import journal
    from flataudit.registries.mlflow import promotion as promoting

    store, _ = first_promotion(tmp_path / "crashed", promotion, Fuse(at, after=not entered))
    for module in (journal, promoting):
        monkeypatch.setattr(module, "age", lambda created: timedelta(hours=25))
    (one,) = resumed(promoter_of(store, tmp_path / "crashed/state"))
    assert (one.ending, one.sequence) == ("abandoned", 1 if entered else None)
    assert store.aliases["champion"] == "1"
    assert resumed(promoter_of(store, tmp_path / "crashed/state")) == []


def test_the_alias_moved_between_crash_and_resume(tmp_path, promotion):
    store, _ = first_promotion(tmp_path / "crashed", promotion, Fuse(13, after=False))
    store.register("3")
    store.aliases["champion"] = "3"
    (one,) = resumed(promoter_of(store, tmp_path / "crashed/state"))
    assert one.ending == "conflict" and "got version 3" in one.told
    assert store.aliases["champion"] == "3"


def test_bytes_changed_between_crash_and_resume(tmp_path, promotion):
    store, _ = first_promotion(tmp_path / "crashed", promotion, Fuse(13, after=False))
    (store.folder / "2" / "more").write_text("")
    (one,) = resumed(promoter_of(store, tmp_path / "crashed/state"))
    assert (one.ending, store.aliases["champion"]) == ("tampered", "1")


def test_a_journal_that_cannot_be_written_is_said(tmp_path, promotion):
    (tmp_path / "file").write_text("")
    tmp_path = tmp_path / "x"
    tmp_path.mkdir()
    store = Store(tmp_path)
    draft = promotion(MODEL, store.register("2"), None, "the audit")
    _, notes = carried(promoter_of(store, tmp_path.parent / "file"), draft)
    assert "no journal on this machine" in notes[0] and store.aliases["champion"] == "2"


# ── Real processes, killed, over a real database ──


WRITES = ("log_param", "set_registered_model_alias", "set_model_version_tag", "journal")


def killed_child(uri, state, draft, at, after):
    """Carry the decision out in a child that kills itself at its n-th write; whether it was killed."""
    child = os.fork()
    if child == 0:
        count = [0]

        def watched(owner, name):
            write = getattr(owner, name)

            def dying(*args, **kwargs):
                count[0] += 1
                if count[0] == at and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = write(*args, **kwargs)
                if count[0] == at and after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            setattr(owner, name, dying)

        try:
            client = connect(uri)
            for name in WRITES[:3]:
                watched(type(client), name)
            for name in ("_write", "end"):
                watched(Journal, name)
            book = located(client, MODEL, Journal(state))
            assert isinstance(book, LedgerRun)
            carried(Promoter(book, uri, 1.0), draft)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def database(trainer, tmp_path):
    """A registry with two versions and an empty ledger, to copy; the fetched candidates."""
    registry = MlflowRegistry(model=MODEL, tracking_uri=trainer.uri, challengers={"newest": 2})
    found = []
    for number in (1, 2):
        trainer.version(tmp_path / f"m{number}", MODEL, files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    trainer.client.set_registered_model_alias(MODEL, "champion", "1")
    for candidate in (registry.champion(), *registry.challengers()):
        (tmp_path / candidate.label).mkdir()
        found.append(registry.fetch(candidate, tmp_path / candidate.label))
    opened(trainer.client, trainer.uri, MODEL, Journal(tmp_path / "unused"))
    return tmp_path / "mlflow.db", found


def test_kill_9_around_every_write(database, promotion, tmp_path, monkeypatch):
    from flataudit.registries.mlflow import promotion as promoting

    monkeypatch.setattr(promoting, "request_seconds", lambda uri: 0.1)
    file, (champion, challenger) = database
    draft = promotion(MODEL, challenger, champion, "the audit")
    deaths = 0
    for at in range(1, 20):
        for after in (False, True):
            place = tmp_path / f"at-{at}-{after}"
            place.mkdir()
            uri = f"sqlite:///{shutil.copy(file, place / 'mlflow.db')}"
            if not killed_child(uri, place / "state", draft, at, after):
                assert at == 9 and not after
                assert deaths == 16
                return
            deaths += 1
            client = connect(uri)
            book = located(client, MODEL, Journal(place / "state"))
            found = resumed(Promoter(book, uri, 0.3))
            ledger = book.read()
            alias = str(client.get_registered_model(MODEL).aliases["champion"])
            assert ledger.problems() == () and ledger.unfinished() == ()
            assert alias == ("1" if at == 1 and not after else "2")
            assert len(ledger.entries) == (0 if alias == "1" else 1)
            assert all(one.ending == "done" for one in found)
            assert resumed(Promoter(book, uri, 0.3)) == []
