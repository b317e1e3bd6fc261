"""What the pages under ``docs/servers`` tell to do."""

from tests.faults.conftest import lanes

__all__ = ["lanes"]
