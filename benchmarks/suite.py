"""All benchmarks, in the order of a report."""

from __future__ import annotations

from .async_checkout import ASYNC_CHECKOUT
from .checkout import CHECKOUT
from .cold_start import COLD_START
from .contended import CONTENDED
from .fairness import FAIRNESS
from .fleet import FLEET
from .measure import Benchmark
from .recovery import RECOVERY
from .retirement import RETIREMENT
from .safe_checkout import SAFE_CHECKOUT
from .scale import SCALE
from .spike import SPIKE
from .steps import STEPS_OF_A_CHECKOUT
from .stress import STRESS
from .thrash import THRASH

SUITE: dict[str, Benchmark] = {
    each.name: each
    for each in (
        CHECKOUT,
        STEPS_OF_A_CHECKOUT,
        CONTENDED,
        ASYNC_CHECKOUT,
        FAIRNESS,
        STRESS,
        THRASH,
        SAFE_CHECKOUT,
        RETIREMENT,
        COLD_START,
        SPIKE,
        RECOVERY,
        SCALE,
        FLEET,
    )
}
