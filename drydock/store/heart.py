"""Tell again and again that this process lives, whatever its main thread is busy with."""

import threading
from collections.abc import Callable

RETRY_SECONDS = 0.5


class Heart:
    """A thread that calls `beat` every `seconds`, and sooner when that failed. It ends with the process."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat, self._seconds = beat, seconds
        self._stopped = threading.Event()
        threading.Thread(target=self._go, name="drydock-heart", daemon=True).start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()

    def _go(self) -> None:
        pause = self._seconds
        while not self._stopped.wait(pause):
            try:
                self._beat()
                pause = self._seconds
            except Exception:  # noqa: BLE001 - whatever it was, to fall silent is to be taken for dead
                pause = RETRY_SECONDS
