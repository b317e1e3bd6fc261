"""Two ways to hear nothing from a server, behind one face.

To the kernel they are different: through a stalled proxy it has everything
acknowledged, while lost packets are sent again and again.
"""

from __future__ import annotations

from typing import Protocol

from tests.lab.network import Network
from tests.lab.proxy import Proxy


class Silence(Protocol):
    """What a test can have fall silent, until it heals it."""

    #: the way to the server
    proxy: Proxy

    def old(self) -> None:
        """The connections there are."""

    def new(self) -> None:
        """Those that come from now on."""

    def everything(self) -> None: ...

    def heal(self) -> None: ...


class Stalled:
    """A peer that has the bytes, and does nothing with them."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def old(self) -> None:
        self.proxy.stall(new=False)

    def new(self) -> None:
        self.proxy.stall(existing=False)

    def everything(self) -> None:
        self.proxy.stall()

    def heal(self) -> None:
        self.proxy.heal()


class Lost:
    """Packets that never arrive.

    :param proxy: one that listens inside the network.
    """

    def __init__(self, proxy: Proxy, network: Network) -> None:
        self.proxy = proxy
        self._network = network

    def old(self) -> None:
        self._network.drop(self.proxy.clients)

    def new(self) -> None:
        self._network.drop_new()

    def everything(self) -> None:
        self._network.drop()

    def heal(self) -> None:
        self._network.heal()
        self.proxy.heal()
