"""One background job at a time, the latest wins.

A slider asks for a new text many times a second. Each request replaces the one that waits, asks the
running one to stop, and starts as soon as it has. The model thus has one user, and what a user sees
belongs to the last position of the slider.

``synchronous=True`` runs a job in the calling thread instead, for front ends that do not show
updates from other threads. Unless told, so it is on Colab (googlecolab/colabtools issue 3373).
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakSet

from workbench.colab import in_colab

Job = Callable[[threading.Event], None]
"""Does the work; returns soon after the event is set."""
PATIENCE = 10.0
"""Seconds that the end of the program waits for what still runs."""


class LatestJob:
    """Runs the newest of the jobs it is given."""

    def __init__(
        self, on_error: Callable[[BaseException], None], *, synchronous: bool | None = None
    ) -> None:
        """Make an idle runner.

        Args:
            on_error: Gets what a job raised: a thread's own traceback is seen by nobody.
            synchronous: Run jobs in the caller's thread; on Colab only, if None.
        """
        self._on_error = on_error
        self._synchronous = in_colab() if synchronous is None else synchronous
        self._lock = threading.Lock()
        self._waiting: Job | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Stop what runs and do `job` next; a job that still waits is dropped."""
        if self._synchronous:
            self._stop = threading.Event()
            self._guarded(job, self._stop)
            return
        with self._lock:
            self._waiting = job
            self._stop.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="workbench", daemon=True)
                _RUNNERS.add(self)
                self._thread.start()

    def stop(self) -> None:
        """Stop what runs and drop what waits."""
        with self._lock:
            self._waiting = None
            self._stop.set()

    @property
    def waiting(self) -> bool:
        """Whether a newer job waits for the running one to stop."""
        return self._waiting is not None

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._thread is not None

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; False if the time is up first."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                job, self._waiting = self._waiting, None
                if job is None:
                    self._thread = None
                    return
                self._stop = stop = threading.Event()
            self._guarded(job, stop)

    def _guarded(self, job: Job, stop: threading.Event) -> None:
        try:
            job(stop)
        except BaseException as error:
            self._on_error(error)


class Errands:
    """Does every job that it is given, one after the other, in a thread that ends when idle.

    For what must not be lost when the next comes: a feature to add, a file to write.
    """

    def __init__(
        self, on_error: Callable[[BaseException], None], *, synchronous: bool | None = None
    ) -> None:
        """Make an idle runner; see `LatestJob`."""
        self._on_error = on_error
        self._synchronous = in_colab() if synchronous is None else synchronous
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, errand: Callable[[], None]) -> None:
        """Do `errand` after those that wait."""
        if self._synchronous:
            self._guarded(errand)
            return
        with self._lock:
            self._waiting.append(errand)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="workbench", daemon=True)
                _RUNNERS.add(self)
                self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if the time is up first."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                errand = self._waiting.popleft()
            self._guarded(errand)

    def _guarded(self, errand: Callable[[], None]) -> None:
        try:
            errand()
        except BaseException as error:
            self._on_error(error)


_RUNNERS: WeakSet[LatestJob | Errands] = WeakSet()


@atexit.register
def _end() -> None:
    """Let what runs come to its end: a thread that Python ends inside torch aborts the program."""
    runners = list(_RUNNERS)
    for runner in runners:
        if isinstance(runner, LatestJob):
            runner.stop()
    for runner in runners:
        runner.join(PATIENCE)
