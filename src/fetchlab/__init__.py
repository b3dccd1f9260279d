"""fetchlab: SAC + HER on the Fetch tasks, from pixels and from state.

Importing this package imports nothing heavy: simulator workers import it and stay
free of torch.
"""

__version__ = "0.1.0"
