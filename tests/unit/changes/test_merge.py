"""Merging changes reduces the number of requests and does not change the result for any member."""

from __future__ import annotations

import json
import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meibo.changes.executor import merge
from meibo.changes.messages import Action, Change, parse_change
from tests.support.changes import change_message

ACTIONS: st.SearchStrategy[Action] = st.sampled_from(["add", "remove"])
CHANGES = st.lists(
    st.tuples(ACTIONS, st.lists(st.integers(0, 15).map(str), min_size=1, max_size=16, unique=True)), max_size=10
)


def _change(action: Action, members: list[str]) -> Change:
    change = parse_change(json.dumps(change_message("org_0000000000000001", "auth0|1", action=action)))
    assert isinstance(change, Change)
    # The change is not validated, because its ids are numbers.
    return change.model_copy(update={"members": tuple(members)})


@given(CHANGES)
def test_merged_changes_have_the_same_result_as_separate_changes(changes: list[tuple[Action, list[str]]]) -> None:
    alone: set[str] = set()
    for action, members in changes:
        alone = alone | set(members) if action == "add" else alone - set(members)

    together: set[str] = set()
    executed: Counter[tuple[int, str]] = Counter()
    by_index = {index: _change(*change) for index, change in enumerate(changes)}
    for step in merge([(index, change, change.members) for index, change in by_index.items()]):
        for portion in step.requests(by_index):
            assert len(portion) <= 10
            together = together | set(portion) if step.action == "add" else together - set(portion)
        executed.update((index, member) for member, indexes in step.members.items() for index in indexes)

    assert together == alone
    assert executed == Counter((index, member) for index, (_, members) in enumerate(changes) for member in members)


@given(st.lists(st.integers(0, 200).map(str), min_size=1, max_size=200, unique=True), st.data())
def test_ids_of_an_action_share_requests_across_changes(members: list[str], data: st.DataObject) -> None:
    # given: the ids in up to ten changes, interleaved with changes of the other action for other users
    cuts = sorted(data.draw(st.lists(st.integers(0, len(members)), max_size=4)))
    changes: list[Change] = []
    for start, end in zip([0, *cuts], [*cuts, len(members)], strict=True):
        if members[start:end]:
            changes += [_change("add", members[start:end]), _change("remove", [f"other-{start}"])]

    by_index = dict(enumerate(changes))
    steps = merge([(index, change, change.members) for index, change in by_index.items()])

    requests = [request for step in steps if step.action == "add" for request in step.requests(by_index)]
    assert len(requests) == math.ceil(len(members) / 10)


def test_members_with_roles_are_distributed_evenly_over_the_requests() -> None:
    # given: members without roles in one change, and fewer members with a role in another
    members = [str(number) for number in range(60)]
    change = _change("add", members)
    by_index = {0: change, 1: change.model_copy(update={"members": ("x", "y", "z"), "roles": ("rol_1",)})}

    (step,) = merge([(index, change, change.members) for index, change in by_index.items()])

    requests = list(step.requests(by_index))
    assert [member for request in requests for member in request if member.isdigit()] == members
    assert [sum(not member.isdigit() for member in request) for request in requests] == [1, 0, 1, 0, 1, 0, 0]
