"""Which device a run uses."""

import torch

from tracin_func.errors import UsageError

AUTOMATIC = ("cuda", "mps", "cpu")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """`device`, or the first there is of cuda, mps and cpu when it is None or "auto".

    Raises:
        UsageError: no such device type, or this machine has none.
    """
    if device is None or device == "auto":
        return torch.device(next(name for name in AUTOMATIC if _is_available(torch.device(name))))
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in AUTOMATIC:
        raise UsageError(
            f"`device` should be auto, {', '.join(AUTOMATIC)}, or one of these with an index. Got {device!r}."
        )
    if not _is_available(resolved):
        there = ", ".join(name for name in AUTOMATIC if _is_available(torch.device(name)))
        raise UsageError(
            f"device {str(resolved)!r} is not available here (torch {torch.__version__}); there is: {there}."
        )
    return resolved


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return torch.backends.mps.is_available() if device.type == "mps" else True
