"""Memory is nearly used up: said once in a process, heeded by all that read, submit and score in it.

Whoever watches the memory raises and clears the level; nothing here looks at memory by itself.
"""

import threading


class Pressure:
    """Whether this process has nearly as much memory as it may have. Any thread may tell and ask.

    Asking costs next to nothing: it is done before each model call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_high = False
        self._episodes = 0

    @property
    def is_high(self) -> bool:
        """Whether nothing should be begun that can wait."""
        return self._is_high

    @property
    def episodes(self) -> int:
        """How often it rose so far."""
        return self._episodes

    def raise_level(self) -> None:
        """Memory is short. Saying so again before it was cleared changes nothing."""
        with self._lock:
            if not self._is_high:
                self._episodes += 1
                self._is_high = True

    def clear(self) -> None:
        """There is room again."""
        with self._lock:
            self._is_high = False

    def reset(self) -> None:
        """As if it had never risen; for tests, which share a process."""
        with self._lock:
            self._is_high = False
            self._episodes = 0


# The level of this process.
PRESSURE = Pressure()
