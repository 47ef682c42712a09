"""What is of no execution any more, or of another name, is taken out of the list of names."""

from __future__ import annotations

from flowd.store.redis import keys, scripts
from tests.store.engine import CHAIN

GONE = "0123456789ab0123456789ab"


async def test_only_what_is_of_an_execution_of_that_name_stays(engine, redis):
    execution = await engine.start(CHAIN)
    right = f"test\0{execution.id}"
    wrong = (f"other\0{execution.id}", f"test\0{GONE}", "rubbish", f"test {execution.id}", "")
    redis.zadd(keys.NAMES, dict.fromkeys(wrong, 0))

    struck = await engine.store.executions._client.run(
        scripts.STRIKE_NAMES, (keys.NAMES,), right, *wrong
    )

    assert struck == len(wrong)
    assert redis.zrange(keys.NAMES, 0, -1) == [right]
