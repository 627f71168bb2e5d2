"""Gates that decide at the same moment, on a real tracking server over SQLite and over PostgreSQL."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import postgres
import pytest

from flataudit.errors import ConflictError
from flataudit.journal import Journal
from flataudit.registries.mlflow import MlflowRegistry
from flataudit.registries.mlflow.carrying import carried
from flataudit.registries.mlflow.client import connect
from flataudit.registries.mlflow.ledger_run import opened
from flataudit.registries.mlflow.promotion import Promoter

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore"),  # MLflow's own code warns, of SQLAlchemy and of type hints
]

GATES = 8
ROUNDS = 10


@pytest.fixture
def name(request):
    """The server is shared, so each test has a model of its own."""
    return request.node.name.replace("[", "-").strip("]")


def candidates(server, name, tmp_path, number):
    """Fetched versions 1, 2, …, of different bytes."""
    registry = MlflowRegistry(model=name, tracking_uri=server.uri, challengers={"newest": number})
    for index in range(1, number + 1):
        server.version(tmp_path / f"m{index}", name, files={"MLmodel": f"flavors: {{f{index}: {{}}}}"})
    found = {}
    for candidate in registry.challengers():
        (tmp_path / candidate.label).mkdir()
        found[int(candidate.version)] = registry.fetch(candidate, tmp_path / candidate.label)
    return registry, [found[index] for index in sorted(found)]


def race(server, name, promotion, tmp_path, rounds):
    """Rounds of gates, each with a challenger of its own, that all compared the champion as the round began.

    A gate whose challenger is better promotes it; whoever loses decides again in the next round, against the new
    champion. When the best is champion, all are measured anew, and the champion turns out to be the worst.
    """
    registry, found = candidates(server, name, tmp_path, GATES)
    generator, qualities = random.Random(0), [0.0] * GATES
    barrier = threading.Barrier(GATES, timeout=120)
    promoters = []
    for _ in range(GATES):
        client = connect(server.uri)
        promoters.append(Promoter(opened(client, server.uri, name, Journal(tmp_path / "state")), server.uri, 60.0))

    def decide(gate, number, champion):
        draft = promotion(name, found[gate], champion, f"{number}-{gate}")
        barrier.wait()
        try:
            return carried(promoters[gate], draft)[0]
        except ConflictError as error:
            return error

    def take_part(gate, number, champion):
        now = qualities[found.index(champion)] if champion else -1.0
        if qualities[gate] > now:
            return decide(gate, number, champion)
        barrier.wait()
        return None

    attempts = 0
    with ThreadPoolExecutor(GATES) as pool:
        for number in range(rounds):
            read = registry.champion()
            champion = next((c for c in found if read and c.version == read.version), None)
            if champion is None or qualities[found.index(champion)] == max(qualities):
                qualities = [generator.random() for _ in range(GATES)]
                if champion:
                    qualities[found.index(champion)] = 0.0
            ends = list(pool.map(lambda gate: take_part(gate, number, champion), range(GATES)))  # noqa: B023
            took_part = [end for end in ends if end is not None]
            attempts += len(took_part)
            moved = [end for end in took_part if not isinstance(end, ConflictError)]
            assert len(moved) == 1
            assert registry.champion().version == moved[0].target.version
    account = registry.account()
    assert account.ledger.problems() == () and not account.drift and not account.unfinished
    assert len(account.ledger.entries) == attempts
    assert [entry.kind for entry in account.ledger.entries].count("promote") == rounds
    assert set(account.ledger.endings.values()) == {"done"}
    return attempts


def test_eight_gates_ten_rounds(server, name, promotion, tmp_path):
    attempts = race(server, name, promotion, tmp_path, ROUNDS)
    assert attempts > 3 * ROUNDS  # else there was hardly a race


def test_the_best_is_champion_in_the_end(server, name, promotion, tmp_path):
    """Losers decide again against the new champion, until nobody is better."""
    registry, found = candidates(server, name, tmp_path, 5)
    barrier = threading.Barrier(len(found), timeout=120)

    def insist(gate):
        client = connect(server.uri)
        promoter = Promoter(opened(client, server.uri, name, Journal(tmp_path / "state")), server.uri, 60.0)
        barrier.wait()
        for attempt in range(len(found)):
            read = registry.champion()
            champion = next((c for c in found if read and c.version == read.version), None)
            if champion is not None and found.index(champion) >= gate:
                return "not better"
            try:
                carried(promoter, promotion(name, found[gate], champion, f"{attempt}-{gate}"))
                return "promoted"
            except ConflictError:
                continue
        return "never"

    with ThreadPoolExecutor(len(found)) as pool:
        ends = list(pool.map(insist, range(len(found))))
    assert ends[-1] == "promoted" and "never" not in ends
    account = registry.account()
    assert account.found.version == found[-1].version
    assert account.ledger.problems() == () and not account.drift and not account.unfinished


def test_whole_records_at_once(server, name, audit, files, tmp_path):
    """The first decisions on a model: directory, ledger, audit runs and tags are all made at the same moment."""
    registry, found = candidates(server, name, tmp_path, 4)
    barrier = threading.Barrier(3, timeout=120)
    server.client.set_registered_model_alias(name, "champion", "4")

    def record(gate):
        pair = [found[3], found[gate]]
        made = audit(pair, champion=found[3], promoted=found[gate], audit_id=f"gate-{gate}")
        barrier.wait()
        try:
            return registry.record(made, files, promote=True).promoted
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(record, range(3)))
    assert sorted(ends)[1:] == ["conflict", "conflict"]
    assert registry.champion().version == sorted(ends)[0]
    account = registry.account()
    assert account.ledger.problems() == () and len(account.ledger.entries) == 3
    decisions = {v: server.client.get_model_version(name, v).tags["flataudit.decision"] for v in "123"}
    assert sorted(decisions.values()) == ["conflict", "conflict", "promote"]


def test_over_postgresql(server, name, promotion, tmp_path):
    """The same races where many connections write at once: SQLite admits one writer at a time."""
    reason = postgres.lacking()
    if reason:
        pytest.skip(reason)
    with (
        postgres.cluster() as database,
        postgres.tracking_server(database, tmp_path) as uri,
    ):
        race(type(server)(uri, tmp_path / "files"), name, promotion, tmp_path, 4)
