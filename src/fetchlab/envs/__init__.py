"""One exact Fetch environment, its rendering, worker processes and the batched EnvBase."""
