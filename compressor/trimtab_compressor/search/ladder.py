"""The ladder: candidates from the gentlest to the strongest; the first that passes is the one.

It spends one step per candidate and needs no model of the device. Because the ladder is ordered by
what a recipe does to accuracy, the first to keep every budget is also the one that changed least.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_compressor.recipes import Choice
from trimtab_protocol.budget import Outcome


class LadderSearch:
    """Walks up a fixed list.

    Args:
        choices: Gentlest first.
        stops_at_pass: False to walk on to the end, to know what every candidate costs.
    """

    def __init__(self, choices: Sequence[Choice], *, stops_at_pass: bool = True) -> None:
        self._choices = tuple(choices)
        self._stops_at_pass = stops_at_pass
        self._outcomes: dict[Choice, Outcome] = {}

    def ask(self) -> Choice | None:
        """The gentlest candidate that has no outcome yet, or None."""
        if self._stops_at_pass and Outcome.PASS in self._outcomes.values():
            return None
        return next((row for row in self._choices if row not in self._outcomes), None)

    def tell(self, choice: Choice, outcome: Outcome) -> None:
        """Note the outcome."""
        self._outcomes[choice] = outcome
