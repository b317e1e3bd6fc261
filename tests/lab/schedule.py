"""One schedule: callers who take turns as an explorer says."""

from __future__ import annotations

from dataclasses import dataclass
import logging
import sys
from typing import Any
from typing import Callable
from typing import Hashable
from typing import Optional
from typing import TYPE_CHECKING

import greenlet

from tests.lab.happens_before import Order
from tests.lab.happens_before import Past

if TYPE_CHECKING:
    from tests.lab.explorer import Explorer

#: what a caller may do when it is its turn
GO, COLLECT, TIME_OUT, INTERRUPT = "", "collects", "times out", "interrupted"

#: who goes on, what it does, and how many preemptions that costs
Choice = tuple[str, str, int]
#: a thing and its attribute, with ``[]`` what that contains
Label = tuple[str, str]


def kind_of(label: Label) -> Label:
    """An attribute, of whichever thing of the same kind.

    How many of them there are in a run depends on the schedule.
    """
    owner, attribute = label
    kind = owner.partition("-")[0].rstrip("0123456789")
    return kind, attribute.partition("-")[0]


class Pruned(Exception):
    """An earlier schedule has led to the same state."""


class Interrupted(BaseException):
    """A cancellation, or an interrupt, that comes while a caller waits."""


class Stuck(AssertionError):
    """Somebody waits for ever."""


@dataclass(eq=False)
class Caller:
    """One of those who run side by side."""

    name: str
    body: Callable[[], object]
    #: its waits may time out at any moment; else they never do
    impatient: bool = False
    #: one of its waits may be interrupted
    interruptible: bool = False
    greenlet: Any = None
    #: tells whether it can go on; None: it can
    ready: Optional[Callable[[], bool]] = None
    #: it is at a wait, which may end in other ways
    waits: bool = False
    #: others may go on here without a preemption
    yields: bool = False
    done: bool = False
    action: str = GO
    #: how many things it has made, for their names
    made: int = 0

    def __post_init__(self) -> None:
        self.past = Past(self.name)

    def options(self, garbage: bool) -> list[str]:
        """What it may do now."""
        if self.done:
            return []
        options = []
        if self.ready is None or self.ready():
            options.append(GO)
        elif self.waits and self.impatient:
            options.append(TIME_OUT)
        if self.waits and self.interruptible:
            options.append(INTERRUPT)
        if garbage and GO in options and not self.waits:
            options.append(COLLECT)
        return options


class Run:
    """One schedule, while it is being run.

    :param preemptions: how many there may be.
    :param tells: who ran which line when.
    """

    def __init__(
        self, explorer: Explorer, preemptions: int, tells: bool
    ) -> None:
        self._explorer = explorer
        self.callers: dict[str, Caller] = {}
        self.active: Optional[Caller] = None
        self.budget = preemptions
        #: how often there was a choice
        self.depth = 0
        self.schedule: list[tuple[str, str]] = []
        self.story: list[str] = []
        self.failure: Optional[BaseException] = None
        #: after this run, the search begins anew with what it has shown
        self.learned = False
        self.has_garbage = False
        #: called when nothing moves any more but timeouts
        self.when_quiet: Callable[[], object] = lambda: None
        #: called when all have ended
        self.when_over: Callable[[], object] = lambda: None
        #: told of each change to a watched container, and what came of it
        self.observers: list[Callable[..., object]] = []
        self._tells = tells
        self._order = Order()
        self._garbage: Optional[Callable[[], object]] = None
        self._collecting: Optional[Caller] = None
        self._main = greenlet.getcurrent()
        self._made = 0
        #: the ``id`` of what is just being made
        self.newborn: Optional[int] = None

    # -- for scenarios ---------------------------------------------------

    def add(
        self, name: str, body: Callable[[], object], **more: Any
    ) -> Caller:
        """Have somebody run beside the others."""
        caller = Caller(name, body, **more)
        caller.greenlet = greenlet.greenlet(self._play)
        if self.active is not None:
            caller.past.join(self.active.past)
        self.callers[name] = caller
        return caller

    def name(self, kind: str) -> str:
        """A name for a new thing, the same in every schedule that makes it
        at this place."""
        maker = self.active
        if maker is None:
            self._made += 1
            return f"{kind}{self._made}"
        maker.made += 1
        return f"{kind}-{maker.name}{maker.made}"

    def drop(self, finaliser: Callable[[], object]) -> None:
        """There is garbage; it is collected once, at any step of anyone."""
        self._garbage = finaliser
        self.has_garbage = True

    def talk(self, what: str) -> None:
        """Something is asked of the world outside: others may go on."""
        caller = self.active
        if caller is not None:
            caller.yields = True
            self._turn(caller, what)
            caller.yields = False

    def block(
        self, ready: Callable[[], bool], label: Hashable, waits: bool = True
    ) -> None:
        """Wait until ``ready``, or for as long as the caller is patient.

        :param waits: there are a timeout and interrupts.
        """
        caller = self.active
        if caller is None:  # before the run, or after its end
            if ready():
                return
            raise greenlet.GreenletExit
        caller.ready, caller.waits = ready, waits
        self._turn(caller, f"waits for {label}")
        caller.ready, caller.waits = None, False
        self._order.contended(caller.past, label, False)
        if caller.action is INTERRUPT:
            caller.interruptible = False
            raise Interrupted

    def must(self, condition: object, otherwise: str) -> None:
        """Have the run fail, and end here, unless a condition holds."""
        if condition:
            return
        if self.active is None:
            raise AssertionError(otherwise)
        # not raised: the pool's code might catch it
        self.failure = AssertionError(otherwise)
        self._end()

    # -- for what is watched -----------------------------------------------

    def access(self, label: Label, what: str, write: bool) -> None:
        """Something is about to be touched; others may go first."""
        caller = self.active
        if caller is None or greenlet.getcurrent() is not caller.greenlet:
            return  # nobody's, or a thread's of another test
        explorer = self._explorer
        if what == "read" and label[1] not in explorer.written:
            return
        if what == "write" and label[1] not in explorer.written:
            explorer.written.add(label[1])
            self.learned = True
        kind = kind_of(label)
        if caller is self._collecting:
            self._finaliser_touches(kind, write)
        if kind in explorer.contended:
            self._turn(caller, (label, what))
            self._order.contended(caller.past, label, write)
            return
        if self._garbage is not None and kind in explorer.finalised:
            if write or explorer.finalised[kind]:
                self._turn(caller, (label, what), alone=True)
        if self._order.races(caller.past, label, write):
            explorer.contended.add(kind)
            self.learned = True
            # now, as this one may order others that seem not to be
            self._end()

    def _finaliser_touches(self, kind: Label, write: bool) -> None:
        finalised = self._explorer.finalised
        if kind not in finalised or write > finalised[kind]:
            finalised[kind] = write
            self.learned = True

    def observe(self, *operation: Any) -> None:
        """Something has been done with a watched container."""
        for observer in self.observers:
            observer(*operation)

    # -- whose turn it is -------------------------------------------------

    def play(self) -> None:
        """Run the schedule, as far as it leads to anything new."""
        chosen = self._choose(None)
        if chosen is not None:
            self._go_on(chosen)
        self.active = None
        logging.disable()  # of what breaks off in the middle
        for caller in self.callers.values():
            caller.greenlet.throw()
        logging.disable(logging.NOTSET)

    def _play(self) -> None:
        caller = self.active
        assert caller is not None
        caller.past.add("begins")
        try:
            caller.body()
        except greenlet.GreenletExit:
            raise
        except BaseException as error:
            if self.active is None:
                raise
            self.failure = error
            self._end()
        caller.done = True
        caller.past.add("ends")
        chosen = self._choose(None)
        if chosen is None:
            self._end()
        else:
            self._go_on(chosen)

    def _end(self) -> None:
        """Leave everything as it is; does not come back."""
        self.active = None
        self._main.switch()

    def _go_on(self, chosen: Caller) -> None:
        self.active = chosen
        chosen.greenlet.switch()

    def _turn(self, caller: Caller, what: Any, alone: bool = False) -> None:
        if self._has_no_choice(caller):
            self.schedule.append((caller.name, GO))
            caller.action = GO
            return
        while True:
            chosen = self._choose(caller, alone)
            if chosen is None:
                self._end()
            elif chosen is not caller:
                self._go_on(chosen)
            if self._tells:
                self._tell(caller, what)
            if alone or caller.yields or caller.action is not GO:
                caller.past.add(what, caller.action)
            if caller.action is not COLLECT:
                return
            self._collect()

    def _has_no_choice(self, caller: Caller) -> bool:
        """Tell in a moment that a caller just goes on."""
        return (
            self.budget == 0
            and caller.ready is None
            and not caller.yields
            and self._garbage is None
            and not self._tells
        )

    def _collect(self) -> None:
        finaliser, self._garbage = self._garbage, None
        if finaliser is None:
            return  # another caller's steps were the occasion
        self._collecting = self.active
        finaliser()
        self._collecting = None

    def _choose(
        self, here: Optional[Caller], alone: bool = False
    ) -> Optional[Caller]:
        """Who goes on; None: nobody."""
        try:
            options = self._options(here, alone)
            if len(options) > 1:
                choice = self._explorer.choose(self, here, options)
                self.depth += 1
            elif options:
                choice = options[0]
            else:
                return None
        except Pruned:
            return None
        except AssertionError as error:
            self.failure = error
            return None
        name, action, cost = choice
        self.budget -= cost
        self.schedule.append((name, action))
        chosen = self.callers[name]
        chosen.action = action
        return chosen

    def _options(self, here: Optional[Caller], alone: bool) -> list[Choice]:
        garbage = self._garbage is not None
        options: list[Choice] = []
        cost = 0
        if here is not None:
            mine = here.options(garbage)
            options = [(here.name, action, 0) for action in mine]
            cost = int(GO in mine and not here.yields)
        if alone:
            return options
        if self.budget >= cost:
            for caller in self.callers.values():
                if caller is not here:
                    for action in caller.options(garbage):
                        options.append((caller.name, action, cost))
        if all(action in (TIME_OUT, INTERRUPT) for _, action, _ in options):
            if garbage:
                self._collect_at_last()
                return self._options(here, alone)
            self._quiet(bool(options))
        return options

    def _collect_at_last(self) -> None:
        collector = self.add("collector", self._collect)
        for caller in list(self.callers.values()):
            if caller is not collector:
                collector.past.join(caller.past)

    def _quiet(self, more: bool) -> None:
        """Nobody can go on by himself."""
        late = [caller for caller in self.callers.values() if not caller.done]
        # who looks here is no caller
        active, self.active = self.active, None
        judge = self.when_quiet if late else self.when_over
        judge()
        self.active = active
        if late and not more:
            names = ", ".join(caller.name for caller in late)
            raise Stuck(f"for ever waiting: {names}")

    def state(self, here: Optional[Caller]) -> int:
        """A number for where everybody is."""
        stays = here is not None and not here.yields and here.ready is None
        pasts = {
            (caller.name, caller.past.number, caller.done)
            for caller in self.callers.values()
        }
        name = here.name if here is not None and stays else None
        return hash((name, self._garbage is None, frozenset(pasts)))

    def _tell(self, caller: Caller, what: Any) -> None:
        frame: Any = sys._getframe(2)
        while frame and "sqla_smartpool" not in frame.f_code.co_filename:
            frame = frame.f_back
        place = ""
        if frame is not None:
            file = frame.f_code.co_filename.rpartition("/")[2]
            place = f"{file}:{frame.f_lineno} {frame.f_code.co_name}"
        if isinstance(what, tuple):
            what = "{0[0]}.{0[1]} {1}".format(*what)
        line = f"{caller.name:>10}  {place:<36} {what}  {caller.action}"
        self.story.append(line.rstrip())
