"""fetchlab: SAC + HER on the Fetch tasks, from pixels and from state.

Importing this package imports nothing heavy: simulator workers import it and stay
free of torch.
"""

import os

# Read by libgomp, torch's OpenMP, when torch is loaded. A thread of its that has nothing to do
# spins for milliseconds by default, on a core that a simulator needs; so it spins for 0.1 ms.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
