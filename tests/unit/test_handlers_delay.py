"""delay waits as long as it is told, and takes no slot meanwhile."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from flowd.errors import WAIT_S_MAX, HandlerFailed, WaitFor
from flowd.handlers.builtin.delay import DelayConfig
from flowd.handlers.config import find_config_problems
from tests.handler_calls import run_handler


def test_it_waits_for_so_many_seconds() -> None:
    with pytest.raises(WaitFor) as wait:
        run_handler("delay", {"seconds": 0.05})

    assert (wait.value.waker, wait.value.due_ms) == ("date", 50)


def test_it_waits_until_a_moment() -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    with pytest.raises(WaitFor) as wait:
        run_handler("delay", {"until": moment.isoformat()})

    assert (wait.value.waker, wait.value.due_ms) == ("moment", 1000 * int(moment.timestamp()))


@pytest.mark.parametrize("config", [{"seconds": 0}, {"until": "2020-01-01T00:00:00Z"}])
def test_what_is_over_is_not_waited_for(config: dict[str, object]) -> None:
    assert run_handler("delay", config) == {"status": "ok", **config}


@pytest.mark.parametrize("seconds", [-1, "1", WAIT_S_MAX + 1, float("nan"), math.inf, True, [], {}])
def test_what_is_no_span_of_time_is_refused(seconds: object) -> None:
    with pytest.raises(HandlerFailed, match=r"^config\.seconds: "):
        run_handler("delay", {"seconds": seconds})


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("tomorrow", "is no moment; write it in ISO 8601"),
        ("2030-13-01T00:00:00Z", "is no moment"),
        ("2030-01-01T00:00:00", "has no zone; add Z for UTC"),
        ("2030-01-01", "has no zone"),
        ("2999-01-01T00:00:00Z", "is more than ten years from now"),
        (1, "should be a valid string"),
    ],
)
def test_what_is_no_moment_is_refused_with_what_is_one(until: object, message: str) -> None:
    (problem,) = find_config_problems(DelayConfig, {"until": until}, "dag.nodes[0].config")

    assert (problem.path, problem.code) == ("dag.nodes[0].config.until", "bad_config")
    assert message in problem.message


@pytest.mark.parametrize("config", [{}, {"seconds": 1, "until": "2030-01-01T00:00:00Z"}])
def test_it_wants_either_seconds_or_a_moment(config: dict[str, object]) -> None:
    with pytest.raises(HandlerFailed, match="say either `seconds` or `until`"):
        run_handler("delay", config)


def test_what_a_template_will_put_there_is_judged_when_it_has() -> None:
    for config in ({"seconds": "{{ A.s }}"}, {"until": "{{ A.at }}"}):
        assert find_config_problems(DelayConfig, config, "dag.nodes[0].config") == []
