"""Decides on each suspect of a check; every decision is in a file at once."""

import threading
from collections.abc import Sequence
from pathlib import Path

from fashion_keras.check.findings import Finding, Suspect, ordered
from fashion_keras.data.review import ACTIONS, Decision, normal, read_review, write_review

FILE = "photos.review.csv"


def suspects_of(found: Sequence[Finding]) -> list[Suspect]:
    """Return each suspect of the findings once, with all reasons, the most harmful first."""
    suspects: dict[str, Suspect] = {}
    for one in (suspect for finding in ordered(found) for suspect in finding.suspects):
        if before := suspects.get(one.name):
            reasons = tuple(dict.fromkeys(before.reasons + one.reasons))
            likelier, same = before.likelier or one.likelier, before.same or one.same
            one = one._replace(reasons=reasons, likelier=likelier, same=same)
        suspects[one.name] = one
    return list(suspects.values())


class Review:
    """The decisions on suspects, in a file that is whole at any time.

    What the file holds already stays, also on photos that are no suspects any more.

    Args:
        suspects: In the order in which they are shown.
        labels: Classes that photos can be moved to.
        file: See `data.review`.

    Raises:
        InputError: If the file exists but cannot be used.
    """

    def __init__(self, suspects: Sequence[Suspect], labels: Sequence[str], file: Path) -> None:
        self.suspects, self.labels, self.file = suspects, labels, file
        self.lock = threading.Lock()  # Held while the file is being written.
        self._names = [normal(one.name) for one in suspects]
        self._decisions = read_review(file, labels) if file.exists() else {}
        self._undo: list[tuple[int, Decision | None]] = []

    def decide(self, number: int, decision: Decision) -> None:
        """Keep, move or drop a suspect, given by its place.

        Raises:
            ValueError: If there is no such suspect, action or class.
            OSError: If the file cannot be written; nothing is decided then.
        """
        moved = decision.action == "move"
        labels = {*self.labels} - {self.suspects[number].label} if moved else {""}
        if number < 0 or decision.action not in ACTIONS or decision.label not in labels:
            raise ValueError(f"not a decision on photo {number}: {decision}")
        with self.lock:
            before = self._decisions.get(self._names[number])
            self._save(number, decision)
            self._undo.append((number, before))

    def undo(self) -> int | None:
        """Take back the last decision of this run; return its suspect's place, None without one."""
        with self.lock:
            if not self._undo:
                return None
            number, before = self._undo[-1]
            self._save(number, before)
            self._undo.pop()
            return number

    def done(self) -> int:
        """Return the number of suspects with a decision."""
        return sum(name in self._decisions for name in self._names)

    def as_json(self) -> dict:
        """Return suspects and decisions as plain values; photos that show the same by place."""
        place = {one.name: number for number, one in enumerate(self.suspects)}
        suspects = []
        for one, name in zip(self.suspects, self._names, strict=True):
            action, to = self._decisions.get(name, Decision(""))
            same = [place[other] for other in one.same]
            suspects.append(one._asdict() | {"path": "", "same": same, "action": action, "to": to})
        facts = {"labels": self.labels, "file": str(self.file), "undoable": len(self._undo)}
        return {"suspects": suspects} | facts

    def _save(self, number: int, decision: Decision | None) -> None:
        changed = {**self._decisions}
        changed.pop(self._names[number], None)
        if decision:
            changed[self._names[number]] = decision
        write_review(self.file, changed)
        self._decisions = changed
