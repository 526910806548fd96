"""asyncio's TLS holds 256 kB for each connection, to read into: 1,000 streams would hold 256 MB.

What it reads into is emptied at once, so one buffer does for all connections of a loop, which are
never read at the same time. The attributes are private: where they are not found, as with uvloop,
each connection keeps what it holds.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
from typing import Any, Final
from weakref import WeakKeyDictionary

# A TLS record holds 16 kB.
_SMALL_BYTES: Final = 32 * 1024

_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = WeakKeyDictionary()


def read_small() -> None:
    """From now on every TLS connection of this process begins with a small buffer.

    It is for whoever owns the process: connections that are just being made, too, need 256 kB each
    otherwise, and what was needed once is not always given back.
    """
    protocol: Any = asyncio.sslproto.SSLProtocol
    if isinstance(getattr(protocol, "max_size", None), int):
        protocol.max_size = _SMALL_BYTES


def share_buffer(transport: asyncio.Transport | None) -> None:
    """Have a connection read into the buffer that others read into."""
    tls: Any = getattr(transport, "_ssl_protocol", None)
    if hasattr(tls, "_ssl_buffer") and hasattr(tls, "_ssl_buffer_view"):
        loop = asyncio.get_running_loop()
        mine = (tls._ssl_buffer, tls._ssl_buffer_view)  # noqa: SLF001  no public way
        tls._ssl_buffer, tls._ssl_buffer_view = _shared.setdefault(loop, mine)  # noqa: SLF001
