"""The table of remote sources: steps, collisions, bounds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bot.jingle.model import MediaSources, Source, SourceGroup, SourceMap
from bot.jingle.sources import Problem, ProblemKind, RemoteSource, SourceTable
from tests.jingle_support import audio_video

ALICE = audio_video(1, 2, 3, owner="alice")
BOB = audio_video(4, 5, 6, owner="bob")


def audio(*sources: Source) -> SourceMap:
    return SourceMap(audio=MediaSources(sources))


def test_look_ups() -> None:
    table = SourceTable()
    change = table.add(ALICE)
    assert (change.sources, change.problems) == (ALICE, ())
    table.add(BOB)
    assert len(table) == 6
    assert 5 in table
    assert 7 not in table
    assert table.owners == ("alice", "bob")
    assert table.by_ssrc(5) == RemoteSource("video", BOB.video.sources[0])
    assert table.by_ssrc(7) is None
    assert [entry.source.ssrc for entry in table.by_owner("alice")] == [1, 2, 3]
    assert table.by_owner("carol") == ()
    assert [entry.source.ssrc for entry in table] == [1, 2, 3, 4, 5, 6]
    assert repr(table) == "SourceTable(sources=6, owners=2, groups=2)"


def test_retransmission_pairs() -> None:
    table = SourceTable()
    table.add(ALICE)
    table.add(SourceMap(video=MediaSources((), (SourceGroup("SIM", (2, 7)), SourceGroup("FID", (7, 8, 9))))))
    assert (table.rtx_of(2), table.primary_of(3)) == (3, 2)
    assert (table.rtx_of(3), table.primary_of(2), table.rtx_of(7), table.rtx_of(99)) == (None, None, None, None)
    assert table.groups_of(2) == (SourceGroup("FID", (2, 3)), SourceGroup("SIM", (2, 7)))


def test_snapshot_and_clear() -> None:
    table = SourceTable()
    table.add(ALICE)
    table.add(BOB)
    assert table.snapshot() == ALICE.merged(BOB)
    assert table.clear().sources == ALICE.merged(BOB)
    assert (len(table), table.owners, table.groups_of(2)) == (0, (), ())
    assert not table.clear().sources


def test_removal_takes_the_groups_along() -> None:
    table = SourceTable()
    table.add(ALICE)
    change = table.remove(SourceMap(video=MediaSources((Source(3, owner="alice"),))))
    assert change.sources.video == MediaSources((ALICE.video.sources[1],), (SourceGroup("FID", (2, 3)),))
    assert table.rtx_of(2) is None
    assert table.snapshot().video.groups == ()


def test_removal_of_exactly_what_was_added() -> None:
    table = SourceTable()
    table.add(ALICE)
    change = table.remove(ALICE)
    assert (change.sources, change.problems) == (ALICE, ())
    assert (len(table), table.owners) == (0, ())


def test_removal_need_not_name_the_owner() -> None:
    table = SourceTable()
    table.add(ALICE)
    assert table.remove(audio(Source(1))).sources == SourceMap(audio=ALICE.audio)
    assert 1 not in table


def test_what_is_not_there_can_not_be_removed() -> None:
    change = SourceTable().remove(
        SourceMap(video=MediaSources((Source(9),), (SourceGroup("FID", (9, 10)), SourceGroup("SIM", ()))))
    )
    assert not change.sources
    assert change.problems == tuple(Problem(ProblemKind.UNKNOWN, ssrc) for ssrc in (9, 0, 9))


def test_an_owner_leaves() -> None:
    table = SourceTable()
    table.add(ALICE)
    table.add(BOB)
    assert table.remove_owner("alice").sources == ALICE
    assert table.owners == ("bob",)
    assert not table.remove_owner("alice").sources


def test_the_same_twice_changes_nothing() -> None:
    table = SourceTable()
    table.add(ALICE)
    change = table.add(ALICE)
    assert not change.sources
    assert change.problems == tuple(Problem(ProblemKind.DUPLICATE, ssrc) for ssrc in (1, 2, 3, 2))
    assert len(table) == 3


def test_an_owner_updates_its_source() -> None:
    table = SourceTable()
    table.add(ALICE)
    desktop = Source(2, "ep-v0", "alice", "ep-video-0-1 v", "desktop")
    change = table.add(SourceMap(video=MediaSources((desktop,))))
    assert (change.sources.video.sources, change.problems, change.displaced) == ((desktop,), (), ())
    assert table.by_ssrc(2) == RemoteSource("video", desktop)
    assert table.rtx_of(2) == 3


def test_a_collision_moves_the_ssrc_and_a_late_removal_is_ignored() -> None:
    table = SourceTable()
    table.add(ALICE)
    taken = Source(2, owner="bob")
    change = table.add(audio(taken))
    assert change.problems == (Problem(ProblemKind.COLLISION, 2),)
    assert change.displaced == (RemoteSource("video", ALICE.video.sources[0]),)
    assert table.by_ssrc(2) == RemoteSource("audio", taken)
    assert table.groups_of(3) == ()
    late = table.remove(SourceMap(video=MediaSources((Source(2, owner="alice"),))))
    assert late.problems == (Problem(ProblemKind.UNKNOWN, 2),)
    assert 2 in table


def test_the_table_is_bounded() -> None:
    table = SourceTable(max_sources=2)
    change = table.add(ALICE)
    assert change.problems == (Problem(ProblemKind.LIMIT, 3),)
    assert len(table) == 2
    change = table.add(SourceMap(video=MediaSources((), (SourceGroup("SIM", (2,)), SourceGroup("SIM", (1,))))))
    assert change.problems == (Problem(ProblemKind.LIMIT, 1),)
    # A known SSRC can still be changed.
    assert table.add(audio(Source(1, "new", "alice"))).problems == ()


def test_empty_groups_are_no_groups() -> None:
    change = SourceTable().add(SourceMap(video=MediaSources((), (SourceGroup("SIM", ()),))))
    assert change.problems == (Problem(ProblemKind.UNKNOWN, 0),)


def test_ssrc_repeated_in_a_group() -> None:
    table = SourceTable()
    odd = SourceMap(video=MediaSources((), (SourceGroup("FID", (7, 7)),)))
    table.add(odd)
    assert table.remove(odd).sources == odd
    assert table.groups_of(7) == ()


class TableMachine(RuleBasedStateMachine):
    """The table against a plain dictionary, over few SSRCs and owners so that they collide."""

    small = st.builds(Source, st.integers(0, 5), st.just(None), st.sampled_from(["a", "b", None]))
    pairs = st.builds(SourceGroup, st.just("FID"), st.tuples(st.integers(0, 5), st.integers(0, 5)))
    parts = st.builds(MediaSources, st.lists(small, max_size=4).map(tuple), st.lists(pairs, max_size=2).map(tuple))

    @initialize()
    def begin(self) -> None:
        self.table = SourceTable(max_sources=100)
        self.model: dict[int, Source] = {}

    @rule(part=parts)
    def add(self, part: MediaSources) -> None:
        self.table.add(SourceMap(video=part))
        self.model.update({source.ssrc: source for source in part.sources})

    @rule(part=parts)
    def remove(self, part: MediaSources) -> None:
        self.table.remove(SourceMap(video=part))
        for source in part.sources:
            known = self.model.get(source.ssrc)
            if known and source.owner in {None, known.owner}:
                del self.model[source.ssrc]

    @rule(owner=st.sampled_from(["a", "b", None]))
    def leave(self, owner: str | None) -> None:
        gone = self.table.remove_owner(owner).sources.video.sources
        assert {source.ssrc for source in gone} == {
            ssrc for ssrc, item in self.model.items() if item.owner == owner
        }
        self.model = {ssrc: item for ssrc, item in self.model.items() if item.owner != owner}

    @invariant()
    def same_as_model(self) -> None:
        assert {entry.source.ssrc: entry.source for entry in self.table} == self.model
        assert set(self.table.owners) == {item.owner for item in self.model.values()}
        by_owner = [entry.source for owner in self.table.owners for entry in self.table.by_owner(owner)]
        assert sorted(item.ssrc for item in by_owner) == sorted(self.model)

    @invariant()
    def groups_are_indexed(self) -> None:
        held = self.table.snapshot().video.groups
        for ssrc in range(6):
            assert set(self.table.groups_of(ssrc)) == {group for group in held if ssrc in group.ssrcs}


TableMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTableMachine = TableMachine.TestCase
