"""What we tell the others of our connection."""

import json
import re

from bot.bridge.session import MediaTotals
from bot.participant.limits import TokenBucket
from bot.participant.quality import QualityMeter
from tests.conftest import CAPTURES

START = MediaTotals(audio_sent=1000, received=100, received_lost=1)


def test_rates_and_loss_of_the_interval() -> None:
    meter = QualityMeter(START, 5.0)
    told = meter.feed(
        MediaTotals(
            audio_sent=41_000,
            video_sent=500_000,
            audio_received=50_000,
            video_received=1_000_000,
            sent_acked=97,
            sent_lost=3,
            received=199,
            received_lost=2,
            round_trip=0.0421,
        ),
        15.0,
    )
    assert told == {
        "colibriClass": "EndpointStats",
        "bitrate": {
            "upload": 432,
            "download": 840,
            "audio": {"upload": 32, "download": 40},
            "video": {"upload": 400, "download": 800},
        },
        "connectionQuality": 70,
        "packetLoss": {"upload": 3, "download": 1, "total": 2},
        "jvbRTT": 42,
        "serverRegion": None,
    }


def test_the_fields_are_those_of_a_web_client() -> None:
    text = (CAPTURES / "web-client-0-bridge.txt").read_text()
    theirs = json.loads(re.findall(r'>>> (\{"colibriClass":"EndpointStats".*)', text)[-1])
    ours = QualityMeter(START, 0.0).feed(MediaTotals(round_trip=0.1), 10.0)
    assert set(theirs) - set(ours) == {"maxEnabledResolution"}
    assert set(ours) <= set(theirs)
    assert set(ours["bitrate"]) == set(theirs["bitrate"])
    assert set(ours["packetLoss"]) == set(theirs["packetLoss"])


def test_the_quality_falls_at_once_and_climbs_slowly() -> None:
    meter = QualityMeter(MediaTotals(), 0.0)
    found = []
    for number, lost in enumerate((0, 5, 20, 20, 20), 1):
        totals = MediaTotals(sent_acked=100 * number - lost, sent_lost=lost)
        found.append(meter.feed(totals, 10.0 * number)["connectionQuality"])
    assert found == [100, 50, 0, 20, 40]


def test_late_packets_and_no_time_make_no_nonsense() -> None:
    meter = QualityMeter(MediaTotals(received=10, received_lost=5, audio_sent=9), 1.0)
    told = meter.feed(MediaTotals(received=14, received_lost=1), 1.0)
    assert told["packetLoss"] == {"download": 0, "total": 0, "upload": 0}
    assert told["bitrate"]["upload"] == 0
    assert "jvbRTT" not in told


def test_a_bucket_allows_a_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(2.0, 3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert repr(bucket) == "<TokenBucket 0.0 of 3>"
