"""A fake of ``huggingface_hub.HfApi``: repositories are folders, and only what is used of it is there."""

from __future__ import annotations

import shutil
from pathlib import Path


class FakeHub:
    """Keeps data sets below a folder.

    Args:
        root: Where the repositories are.
        refuses: What uploads are refused with; nothing refuses none.
    """

    def __init__(self, root: Path, refuses: str = "") -> None:
        self.root, self.refuses = root, refuses

    def create_repo(self, repo_id: str, *, repo_type: str, exist_ok: bool, private: bool) -> None:
        assert repo_type == "dataset"
        self.private = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: str, path_in_repo: str, repo_type: str) -> None:
        if self.refuses:
            raise OSError(self.refuses)
        assert repo_type == "dataset"
        shutil.copytree(folder_path, self.root / repo_id / path_in_repo, dirs_exist_ok=True)
