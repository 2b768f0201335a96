"""Jitsi's JSON encoding of sources."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.jingle import names
from bot.jingle.model import JingleError, MediaSources, Source, SourceGroup, SourceMap
from bot.jingle.sources import sources_from_json, sources_to_json
from tests.jingle_support import source_maps


def read(text: str) -> SourceMap:
    sources = sources_from_json(text)
    assert sources is not None
    return sources


def test_example_of_jicofo() -> None:
    sources = read(
        '{"sources":{"ep":[[{"s":1,"v":"d"},{"s":2}],[["f",1,2],["s",1,3]],[{"s":3,"n":"ep-a0","m":"m"}]]}}'
    )
    assert sources.video == MediaSources(
        (Source(1, owner="ep", video_type="desktop"), Source(2, owner="ep", video_type="camera")),
        (SourceGroup("FID", (1, 2)), SourceGroup("SIM", (1, 3))),
    )
    assert sources.audio == MediaSources((Source(3, "ep-a0", "ep", "m"),))


def test_written_as_jicofo_does() -> None:
    text = '{"sources":{"jvb":[[{"s":391582313,"n":"jvb-v0","m":"mixedmslabel mixedlabelvideo0"}],[],[{"s":4}]]}}'
    assert sources_to_json(read(text)) == text


def test_lists_at_the_end_may_be_missing() -> None:
    assert read('{"sources":{"a":[],"b":[[{"s":"7"}]]}}').video.sources == (
        Source(7, owner="b", video_type="camera"),
    )
    assert read('{"sources":{}}') == SourceMap()


def test_audio_groups_are_the_fourth_list() -> None:
    sources = SourceMap(audio=MediaSources((Source(1, owner="a"),), (SourceGroup("FID", (1, 2)),)))
    assert json.loads(sources_to_json(sources)) == {"sources": {"a": [[], [], [{"s": 1}], [["f", 1, 2]]]}}
    assert read(sources_to_json(sources)) == sources


def test_groups_of_nobody_and_groups_without_a_letter() -> None:
    groups = (SourceGroup("FID", (8, 9)), SourceGroup("FEC-FR", (8, 9)))
    text = sources_to_json(SourceMap(video=MediaSources((), groups)))
    assert json.loads(text) == {"sources": {"": [[], [["f", 8, 9]], []]}}
    assert read(text).video.groups == groups[:1]


def test_unknown_groups_are_left_out() -> None:
    assert read('{"sources":{"a":[[],[["x",1],[],[5,1]]]}}') == SourceMap()


@pytest.mark.parametrize("text", ['{"type":"chat"}', "[]", "1", '{"sources":null}'])
def test_messages_about_something_else(text: str) -> None:
    assert sources_from_json(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"sources":{"a":[[{"s":' + "9" * 5000 + "}]]}}", "is not JSON"),
        ('{"sources":[]}', "'sources' is not an object"),
        ('{"sources":{"a":{}}}', "an owner's entry is not a list"),
        ('{"sources":{"a":[{}]}}', "a list of sources is not a list"),
        ('{"sources":{"a":[[1]]}}', "a source is not an object"),
        ('{"sources":{"a":[[{"s":-1}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{"s":4294967296}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{"s":true}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{"s":1.5}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{"s":"x"}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{}]]}}', "not a number of 32 bits"),
        ('{"sources":{"a":[[{"s":1,"n":5}]]}}', "a source's name is not a short text"),
        ('{"sources":{"a":[[{"s":1,"n":"\\u0000"}]]}}', "a source's name is not a short text"),
        ('{"sources":{"a":[[{"s":1,"m":"' + "m" * 1025 + '"}]]}}', "a source's msid is not a short text"),
        ('{"sources":{"\\ud800":[]}}', "owner is not a short text"),
        ('{"sources":{"a":[[],[1]]}}', "a group is not a list"),
        ('{"sources":{"a":[[],[["f"' + ",1" * 65 + "]]]}}", "a group has more than 64 SSRCs"),
    ],
)
def test_broken_messages(text: str, message: str) -> None:
    with pytest.raises(JingleError, match=message):
        sources_from_json(text)


def test_huge_messages_are_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_JSON", 10)
    with pytest.raises(JingleError, match="more than 10 characters") as caught:
        sources_from_json('{"sources":{}}')
    assert caught.value.condition == "resource-constraint"


@settings(deadline=None)
@given(source_maps)
def test_round_trip(sources: SourceMap) -> None:
    """Once read from JSON (owners together, camera by default), a map comes back as it is."""
    normal = read(sources_to_json(sources))
    assert read(sources_to_json(normal)) == normal
    written = {(source.ssrc, source.name, source.owner, source.msid) for source in sources.video.sources}
    assert {(source.ssrc, source.name, source.owner, source.msid) for source in normal.video.sources} == written
    known = sorted(group.ssrcs for group in sources.video.groups if group.semantics != "FEC-FR")
    assert sorted(group.ssrcs for group in normal.video.groups) == known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["s", "n", "m", "v"]), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_any_message_is_read_or_refused(owners: dict[str, object]) -> None:
    try:
        sources = sources_from_json(json.dumps({"sources": owners}))
    except JingleError:
        return
    assert isinstance(sources, SourceMap)
