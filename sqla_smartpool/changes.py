"""Changes to the pool's books, made one after the other by whoever is there.

A change is *posted*.  Whoever posts one tries for the key; who has it carries
out all that has been posted, in order, serves the waiters, and looks again
after letting go.  Nobody ever blocks on the key, so it does not matter that
the garbage collector may return a connection in the middle of a change on
the same thread: that return is carried out right after it.

An exception may tear a caller away in the middle of anything here, even of a
change that somebody else has posted.  So a change stays posted until it has
been made, and does no harm when it is made twice.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from typing import Callable
from typing import Optional

from .key import Key
from .record import Grip
from .runtime import Runtime

_Letter = tuple[Callable[..., object], tuple[Any, ...]]


def _change_nothing() -> None:
    """The change that is posted to have the waiters looked at."""


class Changes:
    """What is to be changed.

    Names that begin with an underscore are touched with the key only.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._key = Key()
        self._mail: deque[_Letter] = deque()
        #: the change that is being made, or was interrupted
        self._begun: Optional[_Letter] = None
        #: what is to be done without the key; taken from by anyone
        self._todo: deque[Callable[[], object]] = deque()

    @property
    def busy(self) -> bool:
        """Somebody is in the middle of a change."""
        return self._key.locked()

    def post(self, change: Callable[..., object], *args: Any) -> None:
        """Have a change made, now or by whoever is at the books."""
        self._mail.append((change, args))
        self._runtime.on_books(self._settle)

    def look(self) -> None:
        """See whether somebody can be served."""
        self.post(_change_nothing)

    def reclaim_key(self) -> None:
        """Take the key from who vanished with it; for upkeep's thread only."""
        self._key.reclaim()

    def _settle(self) -> None:
        while self._mail:
            grip = Grip()
            try:
                try:
                    if not self._key.take(grip):
                        return
                    while self._mail:
                        self._make_next_change()
                    self._assign()
                finally:
                    self._key.give_back(grip)
            except BaseException:  # maybe in the middle of giving it back
                self._key.give_back(grip)
                raise
            while self._todo:
                try:
                    act = self._todo.popleft()
                except IndexError:
                    break  # somebody else has done it
                act()

    def _make_next_change(self) -> None:
        letter = self._mail[0]
        if letter is self._begun:
            # it was interrupted: once more, but no more, as it may itself
            # be what fails
            self._mail.popleft()
        self._begun = letter
        change, args = letter
        change(*args)
        if self._mail and self._mail[0] is letter:
            self._mail.popleft()
        self._begun = None

    def _assign(self) -> None:
        """Serve those who wait, after changes."""
        raise NotImplementedError
