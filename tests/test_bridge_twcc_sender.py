"""What a sender makes of our feedback: read bit by bit by other code, and judged as congestion control.

The reader follows draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1, the judge
draft-ietf-rmcat-gcc-02 (the delay gradient of section 5.3 as a slope, the loss of section 6).
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bot.bridge.twcc import ArrivalRecorder

INTERVAL = 0.1
#: Rounding to 250 µs, of the first packet and of each other.
EXACT = 0.00026


def bits(data: bytes) -> str:
    return "".join(f"{octet:08b}" for octet in data)


def number(text: str, *, signed: bool = False) -> int:
    value = int(text, 2)
    return value - (1 << len(text)) if signed and text[0] == "1" else value


def statuses(text: str) -> Iterator[int]:
    """The symbols of packet status chunks, without end."""
    while True:
        chunk, text = text[:16], text[16:]
        if chunk[0] == "0":
            yield from [number(chunk[1:3])] * number(chunk[3:])
        elif chunk[1] == "0":
            yield from (number(bit) for bit in chunk[2:])
        else:
            yield from (number(chunk[at : at + 2]) for at in range(2, 16, 2))


def chunk_bits(text: str, count: int) -> int:
    """How many bits the chunks for ``count`` symbols take."""
    taken = 0
    while count > 0:
        chunk = text[taken : taken + 16]
        count -= number(chunk[3:]) if chunk[0] == "0" else 14 if chunk[1] == "0" else 7
        taken += 16
    return taken


def read(packet: bytes) -> list[tuple[int, float | None]]:
    """16-bit sequence numbers with their arrivals in seconds, None for lost ones."""
    assert (packet[0] & 0x1F, packet[1], len(packet) % 4) == (15, 205, 0)
    assert number(bits(packet[2:4])) == len(packet) // 4 - 1
    text = bits(packet[12:])
    base, count, reference = number(text[:16]), number(text[16:32]), number(text[32:56], signed=True)
    rest = text[64:]
    chunks = chunk_bits(rest, count)
    deltas = rest[chunks:]
    clock, found = reference * 0.064, []
    symbols = statuses(rest)
    for at in range(count):
        symbol = next(symbols)
        assert symbol in (0, 1, 2)
        arrival = None
        if symbol:
            width = 8 * symbol
            clock += number(deltas[:width], signed=symbol == 2) * 0.00025
            deltas, arrival = deltas[width:], clock
        found.append(((base + at) & 0xFFFF, arrival))
    assert len(deltas) < 32
    assert "1" not in deltas  # padding
    return found


@dataclass
class Sent:
    """A packet on its way; ``arrival`` is None where it is lost."""

    sequence: int
    at: float
    arrival: float | None


class Sender:
    """Knows what it sent, and what it was told of it."""

    def __init__(self, packets: list[Sent]) -> None:
        self.packets = packets
        self.told: dict[int, float | None] = {}
        self.sizes: list[int] = []
        self._highest = packets[0].sequence - 1

    def run(self) -> None:
        """Let the packets arrive at a recorder that sends its feedback ten times a second."""
        recorder = ArrivalRecorder()
        came = sorted((item.arrival, item.sequence) for item in self.packets if item.arrival is not None)
        due = came[0][0] + INTERVAL
        for arrival, sequence in came:
            while arrival >= due:
                self._take(recorder.build(1, 2, due))
                due += INTERVAL
            recorder.record(sequence & 0xFFFF, arrival)
        self._take(recorder.build(1, 2, due))

    def _take(self, feedback: list[bytes]) -> None:
        for packet in feedback:
            self.sizes.append(len(packet))
            for sequence, arrival in read(packet):
                full = self._highest + (sequence - self._highest + 0x8000) % 0x10000 - 0x8000
                self._highest = max(self._highest, full)
                if arrival is not None or full not in self.told:
                    self.told[full] = arrival

    @property
    def loss(self) -> float:
        return sum(arrival is None for arrival in self.told.values()) / len(self.told)

    def gradient(self) -> float:
        """Slope of the queueing delay over the time of arrival: above 0 a queue grows."""
        points = [(arrival, arrival - item.at) for item in self.packets if (arrival := self.told[item.sequence])]
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        upper = sum((x - mean_x) * (y - mean_y) for x, y in points)
        return upper / sum((x - mean_x) ** 2 for x, _ in points)


def link(
    count: int, *, first: int = 0, delay: Callable[[int], float] = lambda _: 0.03, loss: float = 0.0
) -> list[Sent]:
    """``count`` packets, one each 5 ms. ``delay`` in seconds; the first and the last packet come always."""
    rng, start = random.Random(7), 12_345.678
    packets = []
    for at in range(count):
        sent = start + at * 0.005
        lost = 0 < at < count - 1 and rng.random() < loss
        packets.append(Sent(first + at, sent, None if lost else sent + delay(at)))
    return packets


def jitter(at: int) -> float:
    """Enough for packets to overtake up to seven others."""
    return 0.03 + 0.035 * random.Random(at).random()


@pytest.mark.parametrize(
    "packets",
    [
        link(2000),
        link(2000, loss=0.1),
        link(2000, loss=0.7),
        link(2000, delay=jitter, loss=0.02),
        link(2000, first=65_000),
        link(2000, first=65_500, delay=jitter, loss=0.3),
        link(400, delay=lambda at: 0.03 + 9.0 * (at >= 200)),  # a delta of 8.2 s is the largest
        link(3000, delay=lambda at: 0.03 + max(0.0, 2.0 - 0.005 * max(0, at - 500)) * (at >= 500)),  # a burst
    ],
    ids=["clean", "loss", "heavy-loss", "reorder", "wrap", "all-of-it", "gap", "burst"],
)
def test_the_sender_hears_of_each_packet_when_it_came(packets: list[Sent]) -> None:
    sender = Sender(packets)
    sender.run()
    assert sender.told.keys() == {item.sequence for item in packets}
    for item in packets:
        told = sender.told[item.sequence]
        assert (told is None) == (item.arrival is None)
        if told is not None and item.arrival is not None:
            assert told == pytest.approx(item.arrival, abs=EXACT)  # no drift over thousands of deltas
    assert max(sender.sizes) < 1200


def test_a_long_silence_is_loss_of_nothing() -> None:
    """A muted source, then the next number: the counter goes on."""
    packets = link(200, delay=lambda at: 0.03 + 60.0 * (at >= 100))
    sender = Sender(packets)
    sender.run()
    assert sender.loss == 0


def test_loss_is_what_was_lost() -> None:
    packets = link(4000, loss=0.1)
    sender = Sender(packets)
    sender.run()
    assert sender.loss == sum(item.arrival is None for item in packets) / len(packets)


def test_the_delay_gradient_tells_a_queue_that_grows_from_jitter() -> None:
    slopes = {}
    for name, delay in (
        ("steady", lambda _: 0.03),
        ("jitter", jitter),
        ("growing", lambda at: jitter(at) + at * 0.0005),  # a link at 10/11 of the rate
        ("draining", lambda at: jitter(at) + 0.5 - at * 0.0005),
    ):
        sender = Sender(link(1000, delay=delay))
        sender.run()
        slopes[name] = sender.gradient()
    assert abs(slopes["steady"]) < 0.0005
    assert abs(slopes["jitter"]) < 0.005
    assert slopes["growing"] == pytest.approx(0.1 / 1.1, rel=0.1)
    assert slopes["draining"] == pytest.approx(-0.1 / 0.9, rel=0.1)
