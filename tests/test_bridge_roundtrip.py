"""The round trip from reports about our own streams, with simulated time."""

import pytest

from bot.bridge import rtcp
from bot.bridge.roundtrip import MAX_REPORTS, RoundTrips

NTP = 0x1111_2222_3333_4444


def block(last_sr: int, delay: float, ssrc: int = 7) -> rtcp.ReportBlock:
    return rtcp.ReportBlock(ssrc, 0, 0, 0, 0, last_sr, int(delay * 65_536))


def test_the_time_since_the_report_less_what_the_other_end_took() -> None:
    trips = RoundTrips()
    trips.sent(7, NTP, 10.0)
    assert trips.value is None
    trips.feed(rtcp.ReceiverReport(1, (block(0x2222_3333, 0.5),)), 10.58)
    assert trips.value == pytest.approx(0.08)
    trips.feed(rtcp.SenderReport(1, 0, 0, 0, 0, (block(0x2222_3333, 0.5),)), 10.66)
    assert trips.value == pytest.approx(0.08 + 0.08 / 8)
    assert repr(trips).startswith("<RoundTrips 0.09")


def test_reports_about_others_or_nothing_are_left_alone() -> None:
    trips = RoundTrips()
    trips.sent(7, NTP, 10.0)
    for found in (
        rtcp.ReceiverReport(1, (block(0x2222_3333, 0.5, ssrc=8), block(0, 0.5), block(5, 0.5))),
        rtcp.ReceiverReport(1),
        rtcp.Bye((7,)),
    ):
        trips.feed(found, 10.6)
    assert trips.value is None


def test_a_hasty_clock_at_the_other_end_gives_no_negative_time() -> None:
    trips = RoundTrips()
    trips.sent(7, NTP, 10.0)
    trips.feed(rtcp.ReceiverReport(1, (block(0x2222_3333, 0.5),)), 10.4)
    assert trips.value == 0.0


def test_old_reports_are_forgotten() -> None:
    trips = RoundTrips()
    for number in range(MAX_REPORTS + 1):
        trips.sent(7, (number + 1) << 16, float(number))
    trips.feed(rtcp.ReceiverReport(1, (block(1, 0.0),)), 1.0)
    assert trips.value is None
    trips.feed(rtcp.ReceiverReport(1, (block(2, 0.0),)), 1.5)
    assert trips.value == pytest.approx(0.5)
