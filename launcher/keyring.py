"""Who may come in: what the store says of keys, remembered for a moment, so that not every request asks it."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from launcher.state.keys import Key, KeyStore

# A key that is revoked opens nothing a second later; one that is made counts at once, unless there was none before.
_REMEMBERED_S = 1.0
# Keys in use within a second.
_MOST = 1024


class Keyring:
    """The keys of a store. Any thread may ask.

    Args:
        keyless: no key is asked for until there is one. Where that is over, it is over for good: the last key being
            revoked must not open the doors.
    """

    def __init__(self, keys: KeyStore, keyless: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._keyless = keyless
        self._keyless_until = float("-inf")
        self._lock = threading.Lock()
        # By a hash: a token should not lie about. With each, until when it is remembered.
        self._known: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()

    def is_keyless(self) -> bool:
        """Whether no key is asked for. May ask the store.

        Raises:
            StoreUnavailable: it had to be asked, and does not answer.
        """
        remembered = self.remembers_keyless()
        if remembered is not None:
            return remembered
        if self._keys.any():
            self._keyless = False
            return False
        self._keyless_until = self._clock() + _REMEMBERED_S
        return True

    def remembers_keyless(self) -> bool | None:
        """The same where the store need not be asked; else None."""
        if not self._keyless:
            return False
        return True if self._clock() < self._keyless_until else None

    def remembers(self, token: str) -> Key | None:
        """The key of a token that was checked a moment ago; else None."""
        digest = _digest(token)
        with self._lock:
            until, key = self._known.get(digest, (float("-inf"), None))
        return key if self._clock() < until else None

    def check(self, token: str) -> Key | None:
        """The key of a token; None when it opens nothing. Asks the store.

        Raises:
            StoreUnavailable: it does not answer.
        """
        asked_at = self._clock()
        key = self._keys.check(token)
        digest = _digest(token)
        with self._lock:
            self._known.pop(digest, None)
            if key is not None:
                self._known[digest] = (asked_at + _REMEMBERED_S, key)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        return key

    def still_opens(self, token: str) -> bool:
        """Whether whoever was let in with a token (or without any, where none was asked for) would be now, too.

        Asks the store where nothing is remembered.

        Raises:
            StoreUnavailable: it had to be asked, and does not answer.
        """
        return self.is_keyless() or (self.remembers(token) or self.check(token)) is not None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
