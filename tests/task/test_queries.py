"""Queries as they are typed, and the items that they name."""

from typing import Any

import pytest

from tracin_func.errors import InputError, UsageError
from tracin_func.task.queries import Query, parsed, placed

IDS = ["a", "b", "café", "a_b"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("a,b", ("a", "b", None)),
        (" a , b , 1", ("a", "b", 1)),
        ("a,b,+1", ("a", "b", 1)),
        (("a", "b", -1), ("a", "b", -1)),
        ((0, 5), ("0", "5", None)),
    ],
)
def test_a_query_is_two_items_and_perhaps_a_target(asked: Any, expected: tuple[str, str, int | None]) -> None:
    assert parsed(asked) == expected


@pytest.mark.parametrize("asked", ["a", "", "a,", ",b", "a,b,1,2", "a,,1", "a,b,0", "a,b,up", "a,a", ("a",)])
def test_a_malformed_query_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError, match="`query`") as raised:
        parsed(asked)
    assert repr(asked) in str(raised.value)


def test_items_are_found_by_id_in_either_normal_form_and_by_position() -> None:
    assert placed(["b,a", "cafe\u0301,a_b,-1", "0,3"], IDS) == [Query(1, 0, None), Query(2, 3, -1), Query(0, 3, None)]
    assert placed(["2,1"], ["1", "2"]) == [Query(1, 0, None)]


def test_a_position_is_no_id_where_ids_are_numbers() -> None:
    with pytest.raises(InputError, match="item '0' not found. The nearest id is '10'. Give an id.$"):
        placed(["0,10"], ["10", "11"])


def test_an_unknown_item_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="item 'caf' not found. The nearest id is 'café'. Give an id, or a position"):
        placed(["a,caf"], IDS)
    with pytest.raises(InputError, match="from 0 to 3"):
        placed(["a,4"], IDS)


@pytest.mark.parametrize(("second", "words"), [("a,b,1", "given twice"), ("0,1", "given twice"), ("0,a", "two items")])
def test_a_query_that_is_given_twice_is_refused(second: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        placed(["a,b", second], IDS)
