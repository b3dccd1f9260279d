"""Export a policy: `python src/export.py run=RUN_DIR out=DIR`; `--help` lists the rest."""

from typing import Any

from fetchlab import entry, schema

HELP = """\
Write a run's policy as files that travel:

  python src/export.py run=RUN_DIR [out=DIR] [KEY=VALUE ...]

policy.safetensors (weights and input statistics), policy.json (task, inputs, networks, versions),
policy.pt2 (torch.export, for runtimes without this project), README.md (a model card) and its
curve.svg. `python src/evaluate.py policy=DIR` plays it. The keys of configs/export.yaml:
  run=RUN_DIR                a run's folder
  out=DIR                    where to; by default RUN_DIR/policy
  checkpoint=PATH            a checkpoint's folder; by default the run's newest valid one
  program=false              leave policy.pt2 out
  hub=USER/NAME              then upload it to the Hugging Face hub; pip install -e '.[hub]'
  trusted_modules=[my_pkg]   modules of your own that the run's configuration may name
"""


def export(plain: dict[str, Any]) -> None:
    """Write the files, and say which."""
    asked, unknown = entry.asked(plain, schema.Export)
    assert not unknown, "every key of configs/export.yaml is the command's"
    from fetchlab import policy
    from fetchlab.export import hub

    api = None if asked.hub is None else hub.client(asked.hub)
    folder = policy.export(
        asked.run, asked.out, asked.checkpoint, asked.program, asked.trusted_modules
    )
    for path in sorted(folder / name for name in policy.FILES):
        if path.exists():
            print(f"{path}: {path.stat().st_size:,} bytes")
    if api is not None:
        print(f"hub: {hub.upload(api, asked.hub, folder, policy.FILES)}")


def main() -> None:
    """Run the command line."""
    entry.command("export", export, HELP, paths=["run", "out", "checkpoint"])


if __name__ == "__main__":
    main()
