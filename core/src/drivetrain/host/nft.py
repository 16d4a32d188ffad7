"""nftables by libnftables, in this process: a change is one atomic transaction of some 0.1 ms.

``nft -f -`` does the same in 3 ms, most of it the start of a process.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import threading
import time
from pathlib import Path
from typing import Any

from drivetrain.errors import Internal, NotSupported
from drivetrain.host import namespaces

_OUTPUT_JSON = 1 << 4
#: When threads of this process last used nftables. The kernel names transactions by thread; a
#: number is another's again some time after its thread ended.
_used: dict[int, float] = {}
_OURS_FOR = 5.0


def made_by_us(thread: int) -> bool:
    """Tell whether a transaction of that kernel thread id, just announced, was this process's."""
    return time.monotonic() - _used.get(thread, -_OURS_FOR) < _OURS_FOR


def _library() -> Any:
    """Load libnftables with the signatures of what is used of it."""
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise NotSupported(
            "libnftables.so.1 is missing on this host; install it with: "
            "apt-get install libnftables1 (Debian), dnf install nftables (Fedora)"
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


class NftError(Internal):
    """nftables refused a transaction; nothing of it was done."""


class Nft:
    """The rules of one network namespace; every method may be called by any thread.

    Args:
        namespace: whose rules; ``None``: those of the calling thread.

    Raises:
        NotSupported: libnftables is not installed.
    """

    def __init__(self, namespace: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._library = _library()
        # The context's socket belongs to the namespace of the thread that makes it.
        if namespace is None:
            context = self._library.nft_ctx_new(0)
        else:
            context = namespaces.run_in(namespace, lambda: self._library.nft_ctx_new(0))
        if not context:
            raise Internal("libnftables gave no context; is the process allowed to use netlink?")
        self._context: int | None = context
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)

    def run(self, commands: str) -> str:
        """Run commands in nft's own language as one transaction.

        Returns:
            What they print.

        Raises:
            NftError: refused; nothing was changed. The message is nft's.
        """
        return self._run(commands, 0)

    def query(self, command: str) -> list[dict[str, Any]]:
        """Run a ``list`` command and return its objects, as nft's JSON has them.

        Raises:
            NftError: there is no such object.
        """
        text = self._run(command, _OUTPUT_JSON)
        return json.loads(text)["nftables"] if text else []

    def exists(self, what: str) -> bool:
        """Say whether ``table inet engine``, ``chain inet engine forward``, … exists."""
        try:
            self._run(f"list {what}", 0)
        except NftError:
            return False
        return True

    def _run(self, commands: str, flags: int) -> str:
        with self._lock:
            if self._context is None:
                raise Internal("this nftables context is closed")
            library = self._library
            _used[threading.get_native_id()] = time.monotonic()
            library.nft_ctx_output_set_flags(self._context, flags)
            status = library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Both buffers must be read: reading is what empties them.
            output = library.nft_ctx_get_output_buffer(self._context) or b""
            errors = library.nft_ctx_get_error_buffer(self._context) or b""
        if status:
            raise NftError(f"nftables: {errors.decode(errors='replace').strip()}")
        return str(output.decode(errors="replace"))

    def close(self) -> None:
        """Free the context; may be called twice."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None
