"""Read commits, files and experiments of a git repository."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import UserError

EXPERIMENTS = "refs/exps/"


@dataclass(frozen=True)
class Saved:
    """An experiment that DVC has saved; those that failed or are running are not among them.

    Attributes:
        name: of the experiment.
        baseline: commit from which it was run.
        commit: its own commit.
    """

    name: str
    baseline: str
    commit: str


class Repository:
    """A git checkout.

    Args:
        root: its folder.

    Raises:
        UserError: it is not the root of a git checkout with a commit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        found = self._run("rev-parse", "--verify", "HEAD")
        if found is None:
            raise UserError(
                f"{root} is not a git checkout with a commit; expected one, because experiments are commits; clone "
                "the repository, or run git init and commit"
            )
        self.head = found.decode().strip()

    def resolve(self, name: str) -> str | None:
        """The commit of an experiment (those of the current commit first) or of a git revision; None if neither."""
        for saved in self.experiments():
            if saved.name == name:
                return saved.commit
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return None if found is None else found.decode().strip()

    def read(self, commit: str, path: str) -> str | None:
        """A text file of a commit; None if the commit does not have it."""
        found = self._run("show", f"{commit}:./{path}")
        return None if found is None else found.decode()

    def listing(self, commit: str, paths: list[str]) -> str:
        """Object ids of files and folders in a commit, as text that is equal if their contents are equal."""
        return (self._run("ls-tree", commit, "--", *paths) or b"").decode()

    def changed(self, paths: list[str]) -> list[str]:
        """The tracked files among paths that differ from the last commit."""
        return (self._run("diff", "--name-only", "HEAD", "--", *paths) or b"").decode().splitlines()

    def experiments(self) -> list[Saved]:
        """All saved experiments, those of the current commit first."""
        text = (self._run("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b"").decode()
        found = []
        for line in text.splitlines():
            commit, _, ref = line.partition(" ")
            parts = ref.removeprefix(EXPERIMENTS).split("/")  # the first two and the other 38 digits of the baseline
            if len(parts) == 3 and len(parts[0] + parts[1]) == 40:
                found.append(Saved(parts[2], parts[0] + parts[1], commit))
        return sorted(found, key=lambda saved: saved.baseline != self.head)

    def _run(self, *arguments: str) -> bytes | None:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True)
        return done.stdout if done.returncode == 0 else None
