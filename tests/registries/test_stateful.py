"""Two gates, one vandal and one crash machine over one registry, a request at a time, in any order."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import VERSIONS, World

from flataudit.registries.mlflow.carrying import resumed, rollback

SEATS = st.sampled_from([0, 1])
SECONDS = st.sampled_from([0.0, 0.3, 0.3, 3.0, 30.0])
STOPS = st.sampled_from(["log_param decision", "log_param claim", "log_param outcome", "set_registered_model_alias"])


def somebody_runs(machine):
    return any(seat is not None and not seat.ended for seat in machine.seats)


def a_seat_is_free(machine):
    return any(seat is None or seat.ended for seat in machine.seats)


class Registry(World, RuleBasedStateMachine):
    """What holds whatever the order: an alias moves only from the compared champion to verified bytes, once."""

    @initialize()
    def begin(self):
        self.begin_world()

    def teardown(self):
        if hasattr(self, "store"):
            self.end_world()

    @precondition(a_seat_is_free)
    @rule(challenger=st.sampled_from(VERSIONS), kind=st.sampled_from(["promote", "promote", "promote", "hold"]))
    def a_gate_begins(self, challenger, kind):
        self.seat(lambda index: self.decide(index, challenger, kind))

    @precondition(a_seat_is_free)
    @rule(what=st.sampled_from(["resume", "resume", "rollback"]))
    def a_person_asks(self, what):
        if what == "resume":
            self.seat(lambda index: resumed(self.promoter(index)))
        else:
            self.seat(
                lambda index: rollback(self.promoter(index), "champion", version=None, reason="", actor="a person")
            )

    @precondition(somebody_runs)
    @rule(first=SEATS, steps=st.integers(1, 25), seconds=SECONDS)
    def time_and_requests_go_on(self, first, steps, seconds):
        for _ in range(steps):
            self.advance(first if self.live(first) else 1 - first, seconds)

    @precondition(somebody_runs)
    @rule(first=SEATS, what=STOPS)
    def one_goes_on_until(self, first, what):
        self.advance_until(first if self.live(first) else 1 - first, what)

    @rule(version=st.sampled_from(VERSIONS), what=st.sampled_from(["alias", "no alias", "bytes"]))
    def the_vandal_comes(self, version, what):
        self.vandalise(version, what)

    @precondition(somebody_runs)
    @rule(first=SEATS)
    def a_process_dies(self, first):
        self.kill(first if self.live(first) else 1 - first)

    @invariant()
    def the_ledger_is_one_unbroken_line(self):
        if hasattr(self, "store"):
            self.check_ledger()


Registry.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class TestRegistry(Registry.TestCase):
    """Fifty histories of forty steps."""

    pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints
