"""What a simulated link does to the layers: too narrow, lossy, wide again. Seeded, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.bridge import rtcp, rtp
from bot.bridge._aiortc import TransportSequence
from bot.bridge.twcc import ArrivalRecorder, TransportFeedback, parse_feedback
from bot.engine.bandwidth import REMB_LIFETIME, RING, Uplink
from bot.engine.headers import SendParameters
from bot.engine.layers import LayerControl, layers_for_height
from tests.send_support import LAYERS, VIDEO, Far, World, pictures, sound

ON_THE_WIRE = 38
UPDATE = 0.1


class Link(Far):
    """A bottleneck with a queue that drops what it has no place for, random loss, and a delay both ways."""

    def __init__(
        self,
        world: World,
        rate: float,
        *,
        queue: float = 0.3,
        loss: float = 0.0,
        delay: float = 0.02,
        seed: int = 1,
    ) -> None:
        super().__init__(world.clock)
        self.world, self.rate, self.queue, self.loss, self.delay = world, rate, queue, loss, delay
        self.rng = random.Random(seed)
        self.free_at = 0.0
        self.coming: list[tuple[float, int]] = []
        self.recorder = ArrivalRecorder()
        self.going: list[tuple[float, TransportFeedback]] = []
        self.dropped = 0

    def send_many(self, packets: Sequence[bytes]) -> None:
        super().send_many(packets)
        for data in packets:
            sequence = rtp.transport_sequence(data, rtp.parse_header(data), 5)
            assert sequence is not None
            wait = max(0.0, self.free_at - self.world.now)
            if wait > self.queue or self.rng.random() < self.loss:
                self.dropped += 1
                continue
            self.free_at = self.world.now + wait + 8 * (len(data) + ON_THE_WIRE) / self.rate
            self.coming.append((self.free_at + self.delay + self.rng.uniform(0, 0.002), sequence))

    def feedback(self) -> list[TransportFeedback]:
        """What the bridge says now of what came until now; it arrives after the delay."""
        now = self.world.now
        for arrival, sequence in sorted(item for item in self.coming if item[0] <= now):
            self.recorder.record(sequence, arrival + 5000.0)  # a clock of its own
        self.coming = [item for item in self.coming if item[0] > now]
        for data in self.recorder.build(1, 2, now + 5000.0):
            (packet,) = rtcp.parse(data)
            assert isinstance(packet, rtcp.Feedback)
            self.going.append((now + self.delay, parse_feedback(packet)))
        arrived = [item for when, item in self.going if when <= now]
        self.going = [item for item in self.going if item[0] > now]
        return arrived


class Call:
    """One participant with three layers and sound over a link; ``history`` are the layers each 100 ms."""

    def __init__(
        self,
        rate: float,
        *,
        loss: float = 0.0,
        queue: float = 0.3,
        seed: int = 1,
        video: SendParameters = VIDEO,
    ) -> None:
        self.world = World()
        self.link = Link(self.world, rate, loss=loss, queue=queue, seed=seed)
        self.world.far = self.link
        self.sender = self.world.sender(pictures(LAYERS), parameters=video, phase=0.3, seed=seed)
        self.sound = self.world.sender(sound(), seed=seed)
        self.sound.streams[0].ssrc = 5
        self.control = LayerControl(self.world.uplink)
        self.control.add(self.sender)
        self.control.reserved = self.sound.rates[0]
        self.history: list[int] = []
        self.next_update = self.world.now
        self.world.on_tick = self.tick

    def tick(self) -> None:
        if self.world.now < self.next_update:
            return
        self.next_update += UPDATE
        for item in self.link.feedback():
            self.world.uplink.feedback(item, self.world.now)
        self.control.update(self.world.now)
        self.history.append(self.sender.layers_active)

    def run(self, seconds: float) -> list[int]:
        """Layers each 100 ms of these seconds."""
        before = len(self.history)
        self.world.run(seconds)
        return self.history[before:]


def changes(history: list[int]) -> int:
    return sum(one != other for one, other in pairwise(history))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_clean_link_keeps_all_layers(seed: int) -> None:
    call = Call(20_000_000, seed=seed)
    assert set(call.run(30)) == {3}
    assert call.world.uplink.estimate(call.world.now) is None
    assert call.world.uplink.decreases == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_tenth_lost_on_a_wide_link_costs_no_layer(seed: int) -> None:
    """Nothing queues: sending less would lose a tenth of it, too, and RTX repairs it."""
    call = Call(20_000_000, loss=0.1, seed=seed)
    assert set(call.run(30)) == {3}
    assert call.world.uplink.loss == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("queue", [0.1, 0.3, 1.0])
@pytest.mark.parametrize(("rate", "layers"), [(300_000, 1), (1_000_000, 2), (2_000_000, 2)])
def test_a_narrow_link_drops_layers_soon_and_for_good(rate: float, layers: int, queue: float) -> None:
    call = Call(rate, queue=queue)
    call.run(3.0)
    assert call.sender.layers_active <= layers
    later = call.run(60.0)[150:]
    assert set(later) == {layers}
    dropped = call.link.dropped
    call.run(10)
    assert call.link.dropped - dropped < 30
    assert call.world.uplink.queue < queue + 0.05


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("rate", "layers"), [(300_000, 1), (1_000_000, 2)])
def test_layers_come_back_when_the_link_is_wide_again(rate: float, layers: int, seed: int) -> None:
    call = Call(20_000_000, seed=seed)
    assert set(call.run(5)) == {3}
    call.link.rate = rate
    narrow = call.run(3.0)
    assert narrow[-1] <= layers
    call.run(30.0)
    assert call.sender.layers_active == layers
    call.link.rate = 20_000_000
    wide = call.run(15.0)
    assert wide[-1] == 3
    assert changes(wide) <= 2
    assert set(call.run(40.0)) == {3}
    assert call.control.drops <= 3


@pytest.mark.parametrize(("queue", "loss"), [(0.05, 0.0), (0.3, 0.05), (1.0, 0.0)])
@pytest.mark.parametrize("rate", [850_000, 900_000, 3_400_000, 3_600_000])
def test_nothing_oscillates_where_a_layer_just_fits(rate: float, queue: float, loss: float) -> None:
    call = Call(rate, queue=queue, loss=loss)
    call.run(3)
    assert changes(call.run(100)) <= 6
    assert call.control.drops <= 4


def test_a_link_that_comes_and_goes_is_followed() -> None:
    call = Call(20_000_000)
    for _ in range(3):
        call.link.rate = 20_000_000
        assert call.run(30)[-1] == 3
        call.link.rate = 400_000
        assert call.run(4)[-1] == 1


def test_without_rtx_the_layer_itself_is_the_trial() -> None:
    call = Call(20_000_000, video=SendParameters(100, transport_cc=5))
    call.run(2)
    call.link.rate = 300_000
    assert call.run(3)[-1] == 1
    narrow = call.run(60)
    assert changes(narrow) < 20
    assert narrow.count(1) > len(narrow) * 0.8
    call.link.rate = 20_000_000
    assert call.run(90)[-1] == 3


def test_a_train_that_nobody_answers_is_forgotten() -> None:
    uplink = Uplink(TransportSequence())
    uplink.probe(1e6, 1.0)
    uplink.take((1000,) * 5, 1.0)
    uplink.probed()
    assert not uplink.calm(1.5)
    uplink.feedback(TransportFeedback(1, 2, 0, ((0, 1.0),)), 5.0)
    assert uplink.calm(1.5)
    assert uplink.estimate(5.0) is None


def test_what_the_room_does_not_want_is_not_looked_for() -> None:
    call = Call(300_000)
    call.sender.max_height = 180
    call.run(2)  # the others end where the lowest one has a key frame
    sent = len(call.world.far.of(11))
    assert set(call.run(20)) == {1}
    assert len(call.world.far.of(11)) == sent
    call.sender.max_height = 0
    assert set(call.run(5)) == {0}


def test_remb_limits_for_a_while() -> None:
    call = Call(20_000_000)
    call.run(2)
    call.world.uplink.remb(800_000, call.world.now)
    assert call.run(0.2)[-1] == 2
    call.world.uplink.remb(200_000, call.world.now)
    assert call.run(0.2)[-1] == 1
    call.run(REMB_LIFETIME)
    assert call.sender.layers_active == 3


def test_two_senders_share_the_link_from_the_bottom() -> None:
    call = Call(20_000_000)
    other = call.world.sender(pictures(LAYERS), seed=2)
    call.control.add(other)
    call.world.uplink.remb(1.15 * (call.control.reserved + 2 * call.sender.rates[0] + call.sender.rates[1]), 0)
    call.world.uplink.remb(call.world.uplink.estimate(1.0) or 0, call.world.now)
    call.run(0.5)
    assert (call.sender.layers_active, other.layers_active) == (2, 1)
    call.sender.muted = True
    call.run(0.5)
    assert (call.sender.layers_active, other.layers_active) == (0, 2)
    call.control.remove(other)
    call.control.remove(other)


def test_feedback_of_what_was_never_sent_is_left_out() -> None:
    uplink = Uplink(TransportSequence())
    uplink.feedback(TransportFeedback(1, 2, 0, ()), 1.0)
    uplink.feedback(TransportFeedback(1, 2, 0, ((4000, 1.0),)), 1.0)
    uplink.take((100,) * 10, 0.5)
    uplink.feedback(TransportFeedback(1, 2, 0, ((10, 1.0),)), 1.0)
    assert uplink.loss == uplink.queue == 0
    uplink.feedback(TransportFeedback(1, 2, 0, ((8, 1.0), (9, None))), 1.0)
    assert uplink.loss == 0.5
    uplink.feedback(TransportFeedback(1, 2, 0, ((8, None),)), 1.0)
    assert uplink.loss == 0.5


@given(st.lists(st.integers(1, 40), max_size=400))
def test_times_and_sizes_of_the_last_packets_are_kept(counts: list[int]) -> None:
    uplink = Uplink(TransportSequence())
    expected: list[tuple[float, int]] = []
    for at, count in enumerate(counts):
        sizes = tuple(range(count))
        assert uplink.take(sizes, float(at)) == len(expected) & 0xFFFF
        expected += [(float(at), size) for size in sizes]
    for number in range(max(0, len(expected) - RING), len(expected)):
        assert (uplink._times[number % RING], uplink._sizes[number % RING]) == expected[number]


@given(st.lists(st.integers(1, 4320), max_size=4).map(sorted), st.none() | st.integers(-5, 4320))
def test_the_layers_of_a_height_never_exceed_it(heights: list[int], limit: int | None) -> None:
    number = layers_for_height(heights, limit)
    if limit is None:
        assert number == len(heights)
    elif limit <= 0:
        assert number == 0
    else:
        assert number >= 1
        assert all(height <= limit for height in heights[1:number])
        assert all(height > limit for height in heights[max(1, number) :])
