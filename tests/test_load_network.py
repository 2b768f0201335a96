"""A load run over a bad network, against the embedded server: what is measured is what the scenario says."""

import asyncio
import math
import time

import pytest

from bot.embedded.server import EmbeddedServer
from bot.errors import ConfigurationError
from bot.load import files as scenarios
from bot.load.crew import Crew, configs_of
from bot.load.messages import Share
from bot.load.scenario import Scenario
from bot.load.seating import prepare
from bot.load.shaping import Shaper
from bot.service.runner import embedded_settings
from bot.settings import load
from tests.bridge_support import until

LOSS, DELAY = 0.3, 0.06
#: Packets of two streams of sound that are enough to tell.
ENOUGH = 150


def scenario(**flags: object) -> Scenario:
    """Sound alone: nothing of it is sent again."""
    return scenarios.load(None, participants=2, senders=0, join_rate=50.0, **flags)


def of(link_end: object) -> Shaper:
    assert isinstance(link_end, Shaper)
    return link_end


async def test_loss_and_delay_are_those_of_the_scenario() -> None:
    server = EmbeddedServer(port=0)
    await server.start()
    # One has a delay both ways, the other one loss as well, but in one direction: round trips tell them apart.
    wanted = scenario(
        duration="40s",
        shaping={"delay": DELAY},
        groups=[
            {
                "name": "bad",
                "participants": 1,
                "shaping": {"loss": LOSS, "delay": DELAY, "direction": "down", "seed": 7},
            }
        ],
    )
    settings = prepare(embedded_settings(load(talk="always"), server), wanted)
    began = time.monotonic()
    crew = Crew(Share(wanted, settings, "none", 0, 1), lambda: time.monotonic() - began)
    use = await crew.prepare()
    run = asyncio.create_task(crew.run())
    measures = crew.collector.measures
    try:
        await until(lambda: measures.shares.get("loss", (0, 0))[1] > ENOUGH)
        await until(lambda: (rtt := measures.values.get("rtt")) is not None and rtt.min < 2 * DELAY < rtt.max)
        crew.stop()
        await asyncio.wait_for(run, 20)
    finally:
        run.cancel()
        await use.close()
        await server.stop()

    links = [crew.links[seat] for seat in sorted(crew.links)]
    assert (links[1].up, of(links[0].up).lost, of(links[0].down).lost) == (None, 0, 0)
    down = of(links[1].down)
    deviation = math.sqrt(LOSS * (1 - LOSS) / (down.passed + down.lost))
    assert down.lost / (down.passed + down.lost) == pytest.approx(LOSS, abs=4 * deviation)
    # What is measured is that of media alone; a few packets came when nobody counted yet.
    loss = measures.values["loss"]
    assert loss.min == 0
    assert loss.max == pytest.approx(LOSS, abs=5 * deviation)
    assert measures.values["rtt"].min >= DELAY


def test_a_relay_is_no_way_around_a_bad_network() -> None:
    shaped = scenario(shaping={"delay": DELAY})
    with pytest.raises(ConfigurationError, match="shaping needs another use_turn"):
        prepare(load(use_turn="relay"), shaped)
    configs = configs_of(Share(shaped, prepare(load(), shaped), "none", 0, 1))
    assert {config.settings.use_turn for config in configs.values()} == {"off"}
    prepare(load(use_turn="relay"), scenario())
