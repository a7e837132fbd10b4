"""What a forward keeps on the module, undone: every submodule's attributes as they were."""

from typing import Any

from torch import nn

COPYABLE = 1024  # elements of a container up to which its content is compared or copied, beyond only its length


class Snapshot:
    """The attributes of every submodule, taken once and restored after each forward.

    A forward may keep things on the module: RNNs a list of weights, the old weight_norm their product, others a cache.
    Left there, one checkpoint's cache would serve the next.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept = [_Kept(vars(submodule)) for submodule in module.modules()]
        values = [value for kept in self._kept for value in kept.content.values()]
        containers = [value for value in values if isinstance(value, dict | list | set)]
        self._kept += [_Kept(container) for container in containers if container]
        self._empty = [container for container in containers if not container]  # most are: hooks of modules

    def restore(self) -> None:
        for kept in self._kept:
            kept.restore()
        if any(self._empty):
            for container in self._empty:
                container.clear()


class _Kept:
    """A container and what it held; items are compared by identity, which those that are held cannot lose."""

    __slots__ = ("container", "content", "identities", "names")

    def __init__(self, container: Any) -> None:
        self.container, self.content = container, container.copy()
        compared = self.content if len(container) <= COPYABLE else []
        self.names: Any = _names(compared)
        self.identities = _identities(compared)

    def restore(self) -> None:
        container = self.container
        if len(container) == len(self.content) and (
            len(container) > COPYABLE or (_names(container) == self.names and _identities(container) == self.identities)
        ):
            return
        container.clear()
        container.extend(self.content) if isinstance(container, list) else container.update(self.content)


def _names(container: Any) -> Any:
    return [*container] if isinstance(container, dict) else None


def _identities(container: Any) -> list[int]:
    return [*map(id, container.values() if isinstance(container, dict) else container)]
