"""The worlds in which a test decides who runs: see :mod:`.world`."""

from tests.lab.greenlets import Greenlets
from tests.lab.tasks import Tasks
from tests.lab.world import Actor
from tests.lab.world import Job
from tests.lab.world import World

__all__ = ["Actor", "Greenlets", "Job", "Tasks", "World"]
