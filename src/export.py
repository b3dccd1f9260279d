"""Export a policy: `python src/export.py run=RUN_DIR out=DIR`; `--help` lists the rest."""

from pathlib import Path
from typing import Any

from fetchlab import entry, schema
from fetchlab.errors import ConfigError, RunFailedError, require

HELP = """\
Write a run's policy as files that travel:

  python src/export.py run=RUN_DIR [out=DIR] [KEY=VALUE ...]

policy.safetensors (weights and input statistics), policy.json (task, inputs, networks, versions),
policy.pt2 (torch.export, for runtimes without this project), README.md (a model card) and its
curve.svg. `python src/evaluate.py policy=DIR` plays it. The keys of configs/export.yaml:
  run=RUN_DIR                a run's folder
  out=DIR                    where to; by default RUN_DIR/policy
  checkpoint=PATH            the folder of one of its checkpoints; by default the newest valid one
  program=false              leave policy.pt2 out
  hub=USER/NAME              then upload it to the Hugging Face hub; pip install -e '.[hub]'
  trusted_modules=[my_pkg]   modules of your own that the run's configuration may name
"""


def export(plain: dict[str, Any]) -> None:
    """Write the files, and say which."""
    asked, unknown = entry.asked(plain, schema.Export)
    assert not unknown, "every key of configs/export.yaml is the command's"
    from fetchlab import policy

    api = None if asked.hub is None else client(asked.hub)
    folder = policy.export(
        asked.run, asked.out, asked.checkpoint, asked.program, asked.trusted_modules
    )
    for path in sorted(folder / name for name in policy.FILES):
        if path.exists():
            print(f"{path}: {path.stat().st_size:,} bytes")
    if api is not None:
        print(f"hub: {upload(api, asked.hub, folder)}")


def client(repo: str) -> Any:
    """The hub's client for ``repo``, with a token; asked for before any work is done.

    Raises:
        ConfigError: `huggingface_hub` is not installed, there is no token, or no such name.
    """
    # The client takes a name alone, too, but not everywhere for the same repository.
    require(repo.count("/") == 1, "hub", repo, "user/name", "correct it")
    try:
        import huggingface_hub
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ImportError as error:
        remedy = "pip install -e '.[hub]', or leave hub out"
        raise ConfigError("hub", repo, "the package huggingface_hub", remedy) from error
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise ConfigError("hub", repo, "user/name", f"correct it ({reason})") from error
    token = huggingface_hub.get_token()
    if token is None:
        remedy = "run `hf auth login`, or set HF_TOKEN"
        raise ConfigError("hub", repo, "a token that may write there", remedy)
    return huggingface_hub.HfApi(token=token)


def upload(api: Any, repo: str, folder: Path) -> str:
    """Put the files into ``repo``, which is made where it is missing; returns their address.

    Raises:
        RunFailedError: the hub, or the way there, refuses.
    """
    from fetchlab import policy

    try:
        api.create_repo(repo, exist_ok=True)
        found = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(policy.FILES),
            delete_patterns=list(policy.FILES),  # of an earlier export, which may have had others
            commit_message="A policy of fetchlab",
        )
    except Exception as error:  # HTTP, the network, or the client's own checks
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunFailedError(f"the hub does not take {repo}: {reason}") from error
    return str(found)


def main() -> None:
    """Run the command line."""
    entry.command("export", export, HELP, paths=["run", "out", "checkpoint"])


if __name__ == "__main__":
    main()
