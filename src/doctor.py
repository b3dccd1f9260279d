"""Before a launch: `python src/doctor.py experiment=NAME`; `--help` lists the rest."""

import sys
from typing import Any

from fetchlab import config, entry, schema

HELP = """\
Look at this machine and this configuration before a launch:

  python src/doctor.py experiment=NAME [seconds=60] [picture=FILE.png] [KEY=VALUE ...]

Every key of src/train.py can be given. It looks at packages, renderer (and saves a frame), device,
cores, disk and memory, trains for so many seconds in a temporary folder to tell when the run and
each of its milestones will be done, and follows every loss back into the networks.

The exit code is 0 for go, 1 for no go, and 2 for a configuration that cannot work.

Examples:
  python src/doctor.py experiment=pixel_push_laptop
  python src/doctor.py experiment=state_push debug=default seconds=5
"""


def doctor(plain: dict[str, Any]) -> None:
    """Print what was found; leave with 1 where it is no go."""
    asked = config.own(plain, schema.Doctor)
    command, run = config.split(plain)
    cfg = {key: value for key, value in run.items() if key not in (*vars(asked), "probe")}
    from fetchlab.doctor import examine, show

    resumes = command.resume is not None
    if not show(examine(cfg, asked.seconds, asked.picture, plain["probe"], resumes)):
        sys.exit(1)


def main() -> None:
    """Run the command line."""
    entry.command("doctor", doctor, HELP, paths=["picture", "run_dir"])


if __name__ == "__main__":
    main()
