"""Bounds on servers that images are read from: how long they may take, how much they may send.

A server that never answers, or whose answer never ends, is given up: by default it would hold a
run up for minutes, or fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

CONNECT_S = 10
"""Seconds to reach a server."""
SILENCE_S = 15
"""Seconds in which a server must send something."""
METADATA_S = 30
"""Seconds for metadata as a whole: a server may send a byte now and then for ever."""
METADATA_BYTES = 64 * 2**20
"""Bytes of metadata, at most."""
CHUNK_BYTES = 2**30
"""Bytes of a chunk or shard, at most."""

_METADATA = (".json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class TooMuchError(OSError):
    """An answer that is larger than anything that belongs to an image."""


class BoundedResponse(aiohttp.ClientResponse):
    """An answer that is given up when it is too large or, if it is metadata, takes too long."""

    async def read(self) -> bytes:
        """Read the whole answer.

        Raises
        ------
        TooMuchError
            It is larger than metadata or a chunk may be.
        TimeoutError
            Metadata that take longer than `METADATA_S`.
        """
        if self._body is None:
            metadata = self.url.path.endswith(_METADATA)
            limit = METADATA_BYTES if metadata else CHUNK_BYTES
            async with asyncio.timeout(METADATA_S if metadata else None):
                self._body = await self._read_up_to(limit)
        return await super().read()

    async def _read_up_to(self, limit: int) -> bytes:
        size = self.content_length or 0
        parts: list[bytes] = []
        read = 0
        if size <= limit:
            async for part in self.content.iter_any():
                parts.append(part)
                read += len(part)
                if read > limit:
                    break
        if max(size, read) > limit:
            self.close()
            raise TooMuchError(f"{self.url} sends more than {limit:,} bytes")
        return b"".join(parts)


def storage_options(address: str) -> dict[str, Any]:
    """Return the options of fsspec's file system for an address, with the bounds of this file."""
    if address.partition("://")[0].lower() == "s3":
        waits = {"connect_timeout": CONNECT_S, "read_timeout": SILENCE_S}
        return {"config_kwargs": {**waits, "retries": {"max_attempts": 2}}}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "response_class": BoundedResponse}}
