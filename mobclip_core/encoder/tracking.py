"""Losses of a training under way, for TensorBoard.

Belongs here: writing scalars to an event file. Does not belong here: the history in the bundle and its plot (see
`training`), which need no TensorBoard.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from mobclip_core.encoder.ranks import first_rank
from mobclip_core.errors import ProfileError


class Scalars:
    """Writes numbers by epoch into a folder that `tensorboard --logdir` shows.

    Args:
        folder: Where event files go; None: nowhere.

    Raises:
        ProfileError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: str | None) -> None:
        self._writer: Any = None
        if folder is None or not first_rank():
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ProfileError(
                "encoder.tensorboard needs TensorBoard: pip install 'mobclip[tensorboard]', or leave the option out"
            ) from error
        self._writer = SummaryWriter(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, values: Mapping[str, float], epoch: int) -> None:
        """Note the values of an epoch."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"loss/{name}", value, epoch)
            self._writer.flush()
