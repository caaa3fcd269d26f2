"""How often Python looks for cycles of objects that nobody needs any more."""

import gc

# Thousands of requests under way are hundreds of thousands of live objects, and Python's default looks at the young
# ones after every 700, at those that outlived ten looks after 7,000, and so on. In a busy orchestrator that was
# 30 % of its time (perf, 2026-11-26). Hardly any of our objects are in cycles; those that are wait a little longer.
THRESHOLDS = (20_000, 10, 10)


def look_rarely() -> None:
    """For a process that serves: what is there now stays as long as the process, and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
