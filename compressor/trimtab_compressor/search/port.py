"""The port of a search: it is asked for a proposal and told how that went, and nothing else."""

from __future__ import annotations

from typing import Protocol

from trimtab_compressor.recipes import Choice
from trimtab_protocol.budget import Outcome


class Search(Protocol):
    """Pure: numbers in, proposals out."""

    def ask(self) -> Choice | None:
        """The next candidate to try, or None when the search has ended."""

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """How a proposal ended; once per proposal, in the order they were asked for."""
