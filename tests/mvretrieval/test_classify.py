"""The decision about one file in an indexing run: a pure function of what store and disk say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvretrieval.ingest.classify import RETRIED_FAILURES, Action, FileState, classify

hashes = st.sampled_from(["hash of a", "hash of b"])
codes = st.sampled_from(["no_faces", "unreadable", *sorted(RETRIED_FAILURES)])


@st.composite
def states(draw: st.DrawFn, opened: bool | None = None) -> FileState:
    """Any state that an indexing run can be in."""
    stored = draw(st.booleans())
    opened = draw(st.booleans()) if opened is None else opened
    content_hash = draw(hashes) if opened else None
    stored_hash = draw(hashes) if stored else None
    holders_gone = tuple(draw(st.lists(st.booleans(), max_size=3))) if opened else ()
    if content_hash is not None and content_hash == stored_hash:
        holders_gone = (False, *holders_gone)  # the object at this path is a holder, and its file was just read
    return FileState(
        stored=stored,
        stat_matches=draw(st.booleans()),
        up_matches=draw(st.booleans()),
        failure_code=draw(st.none() | codes),
        failure_unchanged=draw(st.booleans()),
        content_hash=content_hash,
        stored_hash=stored_hash,
        holders_gone=holders_gone,
        in_flight=draw(st.booleans()),
    )


# -- each action -------------------------------------------------------------------------------------------------------

STORED = FileState(stored=True, stat_matches=True, stored_hash="a")
FAILED = FileState(failure_code="no_faces", failure_unchanged=True)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (STORED, Action.SKIP_UNCHANGED),
        (FAILED, Action.SKIP_FAILED),
        (FileState(), Action.OPEN),
        (FileState(stored=True, stat_matches=False, stored_hash="a"), Action.OPEN),
        (FileState(stored=True, stat_matches=True, up_matches=False, stored_hash="a"), Action.OPEN),
        (FileState(failure_code="no_faces", failure_unchanged=False), Action.OPEN),
        (FileState(failure_code="no_permission", failure_unchanged=True), Action.OPEN),
        (FileState(stored=True, content_hash="a", stored_hash="a", holders_gone=(False,)), Action.TOUCH),
        (FileState(content_hash="a", holders_gone=(True,)), Action.MOVE),
        (FileState(content_hash="a", holders_gone=(False, True)), Action.MOVE),
        (FileState(content_hash="a", holders_gone=(False,)), Action.COPY),
        (FileState(stored=True, content_hash="a", stored_hash="b", holders_gone=(True,)), Action.COPY),
        (FileState(content_hash="a", in_flight=True), Action.WAIT),
        (FileState(content_hash="a"), Action.RENDER),
        (FileState(stored=True, content_hash="a", stored_hash="b"), Action.RENDER),
    ],
)
def test_action_for_a_state(state: FileState, action: Action) -> None:
    assert classify(state) == action


def test_every_action_is_reached() -> None:
    (parameters,) = (mark.args[1] for mark in test_action_for_a_state.pytestmark)  # type: ignore[attr-defined]
    assert {action for _, action in parameters} == set(Action)


# -- properties --------------------------------------------------------------------------------------------------------


@given(state=states(opened=True), retry=st.booleans())
def test_stored_content_is_never_rendered(state: FileState, retry: bool) -> None:
    action = classify(state, retry)
    assert (action in (Action.RENDER, Action.WAIT)) == (state.holders_gone == ())


@given(state=states(opened=True), retry=st.booleans())
def test_content_is_rendered_once_at_a_time(state: FileState, retry: bool) -> None:
    if state.in_flight:
        assert classify(state, retry) != Action.RENDER


@given(state=states(opened=False), retry=st.booleans())
def test_decisions_before_a_file_is_opened(state: FileState, retry: bool) -> None:
    assert classify(state, retry) in (Action.SKIP_UNCHANGED, Action.SKIP_FAILED, Action.OPEN)


@given(state=states(opened=True), retry=st.booleans())
def test_an_opened_file_is_not_opened_again(state: FileState, retry: bool) -> None:
    assert classify(state, retry) not in (Action.SKIP_UNCHANGED, Action.SKIP_FAILED, Action.OPEN)


@given(state=states(opened=True))
def test_an_object_is_moved_only_from_a_missing_file_to_a_new_path(state: FileState) -> None:
    if classify(state) == Action.MOVE:
        assert any(state.holders_gone) and not state.stored


@given(state=states())
def test_retry_opens_every_failed_file_and_changes_nothing_else(state: FileState) -> None:
    without, with_retry = classify(state), classify(state, retry_failed=True)
    assert with_retry == (Action.OPEN if without == Action.SKIP_FAILED else without)


@given(state=states())
def test_a_failure_that_may_be_fixed_elsewhere_is_retried(state: FileState) -> None:
    if classify(state) == Action.SKIP_FAILED:
        assert state.failure_code not in RETRIED_FAILURES
