"""What can be wrong with prepared data on the disk."""

from __future__ import annotations

import errno
from typing import Final

#: The disk is full, a quota is used up, or a file may not become larger.
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreError(RuntimeError):
    """A feature store cannot be used; the message names the file, what is wrong and what to do."""


class OtherProducer(StoreError):  # noqa: N818 - the name says it
    """The features in the folder were made by other weights or another preprocessing."""


class CorruptShard(StoreError):  # noqa: N818
    """A shard is damaged: not what was once written."""


class StoreFull(StoreError):  # noqa: N818
    """No room on the disk, or more than a quota or limit allows."""


class NotPrepared(StoreError, KeyError):  # noqa: N818
    """The store has no such clip."""

    def __str__(self) -> str:
        return str(self.args[0])
