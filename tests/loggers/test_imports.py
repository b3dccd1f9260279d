"""Start-up time: loggers leave heavy packages to the moment they are needed."""

import os
import subprocess
import sys

# Lightning itself is replaced by an empty stand-in: what it loads is not this project's doing.
SCRIPT = """
import sys, types
for name in ("lightning", "lightning.pytorch", "lightning.pytorch.loggers",
             "lightning.pytorch.loggers.logger", "lightning.pytorch.callbacks"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    module.Logger = module.Callback = object
import fetchlab.loggers.csv, fetchlab.loggers.tensorboard
import fetchlab.collect.video, fetchlab.statistics
heavy = {"tensorboard", "google.protobuf", "matplotlib", "imageio", "imageio_ffmpeg", "torch"}
print(sorted(heavy & set(sys.modules)))
"""


def test_imports_are_light():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
