"""Upload an exported policy to the Hugging Face hub, the one thing here that needs a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fetchlab.errors import ConfigError, RunFailedError


def client(repo: str) -> Any:
    """The hub's client for ``repo``, with a token; asked for before any work is done.

    Raises:
        ConfigError: `huggingface_hub` is not installed, there is no token, or no such name.
    """
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


def upload(api: Any, repo: str, folder: Path, names: Sequence[str]) -> str:
    """Put those files into ``repo``, which is made where it is missing; returns their address.

    Raises:
        RunFailedError: the hub, or the way there, refuses.
    """
    try:
        api.create_repo(repo, exist_ok=True)
        found = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(names),
            commit_message="A policy of fetchlab",
        )
    except Exception as error:  # HTTP, the network, or the client's own checks
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunFailedError(f"the hub does not take {repo}: {reason}") from error
    return str(found)
