"""Uploading what was made to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from slm_plugin.errors import DataError


class Hub(Protocol):
    """What is used of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, repo_type: str, exist_ok: bool, private: bool) -> Any:
        """Make a repository where there is none."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: str, path_in_repo: str, repo_type: str) -> Any:
        """Upload the files of a folder."""
        ...


def push(output: Path, names: list[str], owner: str, hub: Hub, where: str = "data", public: bool = False) -> list[str]:
    """Upload each of several folders as a data set of its own.

    Args:
        output: Folder of ``slm infer`` or ``slm prepare``.
        names: Folders in it.
        owner: Owner on the hub.
        hub: The hub's client.
        where: Folder of the repository that the files go to; empty for its top.
        public: Whether everybody can see repositories that are made; one that is there stays as it is.

    Returns:
        The repositories.

    Raises:
        DataError: The hub refused, or cannot be reached; what was written locally stays.
    """
    repositories = []
    for name in names:
        repository = f"{owner}/{name}"
        try:
            hub.create_repo(repository, repo_type="dataset", exist_ok=True, private=not public)
            hub.upload_folder(
                repo_id=repository, folder_path=str(output / name), path_in_repo=where, repo_type="dataset"
            )
        except Exception as error:
            # the client's errors are those of several libraries below it
            text = " ".join(str(error).split())[:300]
            raise DataError(
                f"{repository} was not uploaded, what was made stays in {output / name}: {text}"
            ) from error
        repositories.append(repository)
    return repositories
