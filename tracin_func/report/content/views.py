"""What is shown of the items of a report: by their source, or by the task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracin_func.errors import InputError
from tracin_func.sources.registry import viewer_of
from tracin_func.task.item_view import ItemView, as_view
from tracin_func.task.task import Task

Show = Callable[[str], ItemView | None]


def item_views(items: Sequence[str], show: Show | None) -> dict[str, ItemView]:
    """The views of items by id; items of which nothing is shown are left out."""
    found = {} if show is None else {item: show(item) for item in items}
    return {item: view for item, view in found.items() if view is not None}


def shower(origin: Mapping[str, Any], task: Task | None) -> Show | None:
    """What shows items by id: the task's own `show_item`, otherwise the source that provenance names; None for none.

    Args:
        origin: what provenance says about the source.
        task: the scored task, if it is at hand.
    """
    if task is None or task.show_item is None:
        return viewer_of(origin)
    places, own = {item: place for place, item in enumerate(task.all_item_ids)}, task.show_item

    def show(item: str) -> ItemView | None:
        if item not in places:
            return None
        try:
            found = own(places[item])
        except Exception as error:  # of the user's code
            raise InputError(f"`show_item({places[item]})` failed: {type(error).__name__}: {error}.") from error
        return None if found is None else as_view(found)

    return show
