"""Leave to move an alias: the orders of events that chance seldom finds, each step by step."""

import pytest
from world import LEASE, REQUEST, World

from flataudit.errors import ConflictError, RegistryError
from flataudit.registries.mlflow.carrying import resumed

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints

SET = "set_registered_model_alias"


@pytest.fixture
def world():
    made = World()
    made.begin_world()
    yield made
    made.end_world()


def gate(world, challenger):
    return world.seat(lambda index: world.decide(index, challenger, "promote"))


def helper(world):
    return world.seat(lambda index: resumed(world.promoter(index)))


def to_the_end(world, index, *, seconds=0.3, steps=2000):
    for _ in range(steps):
        world.advance(index, seconds)
        if not world.live(index):
            return world.seats[index].result
    raise AssertionError(f"still at {world.seats[index].waiting_for}")


def kinds(world):
    ledger = world.ledger()
    return [(entry.kind, ledger.endings.get(entry.sequence)) for entry in ledger.entries]


def test_two_write_the_same_number(world):
    for challenger in "23":
        gate(world, challenger)
    for index in (0, 1):
        world.advance_until(index, "log_param decision")
    assert to_the_end(world, 1)[0].target.version == "3"
    assert isinstance(to_the_end(world, 0), ConflictError)
    assert world.store.aliases["champion"] == "3"
    assert kinds(world) == [("promote", "done"), ("conflict", None)]


def test_nobody_claims_while_a_claim_stands(world):
    gate(world, "2")
    world.advance_until(0, SET)
    helper(world)
    for _ in range(300):  # the write is under way, and the clock stands still at the longest that it may take
        world.advance(1, 1.0)
    assert world.clock <= 2 * REQUEST and world.live(1)
    assert world.seats[1].waiting_for == "sleep"
    assert to_the_end(world, 0)[0].target.version == "2"
    to_the_end(world, 1)
    assert kinds(world) == [("promote", "done")]


def test_two_claim_at_once(world):
    gate(world, "2")
    world.advance_until(0, "log_param claim")
    helper(world)
    world.advance_until(1, "log_param claim")
    world.advance(1, 0.0)
    for _ in range(100):
        world.advance(0, 0.0)
    assert world.seats[0].waiting_for == "sleep"  # the helper was faster
    assert world.store.aliases["champion"] == "1"
    world.advance_until(1, SET)
    to_the_end(world, 1)
    assert to_the_end(world, 0)[0].target.version == "2"
    assert kinds(world) == [("promote", "done")]


def test_who_reads_too_slowly_does_not_write(world):
    """The first sleeps with the answer in its hands; another finishes its entry, and a third promotes again."""
    gate(world, "2")
    world.advance_until(0, "log_param claim")
    world.advance_until(0, "after get_model_version_by_alias")
    helper(world)
    to_the_end(world, 1, seconds=3.0)
    assert world.clock > LEASE and kinds(world) == [("promote", "done")]
    gate(world, "3")
    to_the_end(world, 1)
    assert world.store.aliases["champion"] == "3"
    with pytest.raises(RegistryError, match="within 60 seconds"):
        raise to_the_end(world, 0)
    assert world.store.aliases["champion"] == "3"
    assert kinds(world) == [("promote", "done"), ("promote", "done")]


@pytest.mark.parametrize("delay", [LEASE - REQUEST - 1, LEASE - REQUEST + 1, LEASE - 1])
def test_a_write_arrives_before_the_lease_ends_or_is_not_sent(world, delay):
    """A helper that takes over at the first moment it may never meets the write of the one before."""
    gate(world, "2")
    world.advance_until(0, "log_param claim")
    world.advance(0, 0.0)
    claimed = world.clock
    world.advance_until(0, "after get_model_version_by_alias")
    helper(world)
    while world.clock < claimed + delay and world.live(1):
        world.advance(1, 0.2)
    world.advance(0, 0.0)
    if world.live(0) and world.seats[0].waiting_for == SET:
        assert delay < LEASE - REQUEST
        while world.clock < world.sending[0] + REQUEST and world.live(1):
            world.advance(1, 0.2)
        assert world.clock <= claimed + LEASE and world.live(1)
        to_the_end(world, 0)
    else:
        assert delay > LEASE - REQUEST
    to_the_end(world, 1)
    assert kinds(world) == [("promote", "done")]


def test_a_slow_hash_costs_nothing_but_time(world):
    """Nobody claims before the bytes are hashed, so a download may take longer than a lease."""
    gate(world, "2")
    world.advance_until(0, "get_model_version_download_uri")
    world.clock += 10 * LEASE
    assert to_the_end(world, 0)[0].target.version == "2"


def test_a_stale_answer_is_no_drift(world):
    """One reading of the alias shows the champion before: it is asked again, and nothing is entered."""
    gate(world, "2")
    to_the_end(world, 0)
    gate(world, "3")
    world.advance_until(0, "get_model_version_by_alias")
    world.advance(0, 0.0)  # the champion that it compares
    world.advance(0, 0.0)
    world.advance_until(0, "get_model_version_by_alias")
    world.store.aliases["champion"] = "1"
    world.advance(0, 0.0)
    assert world.seats[0].waiting_for == "after get_model_version_by_alias"
    world.store.aliases["champion"] = "2"
    assert to_the_end(world, 0)[0].target.version == "3"
    assert kinds(world) == [("promote", "done"), ("promote", "done")]
