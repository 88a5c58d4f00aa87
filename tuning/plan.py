"""What Hyperband is going to do: known before its first trial."""

from typing import Any, NamedTuple


class Stage(NamedTuple):
    """Trials of one bracket that are trained from one epoch to another."""

    bracket: int
    trials: int
    first_epoch: int
    last_epoch: int


class Plan(NamedTuple):
    """All that Hyperband is going to do."""

    stages: list[Stage]

    @property
    def trials(self) -> int:
        """Number of trials."""
        return sum(stage.trials for stage in self.stages)

    @property
    def epochs(self) -> int:
        """Epochs over all trials."""
        return sum(stage.trials * (stage.last_epoch - stage.first_epoch) for stage in self.stages)

    def __str__(self) -> str:
        """Return the plan in a few lines for people."""
        lines = [f"plan: {self.trials} trials, {self.epochs} epochs in all"]
        for bracket in sorted({stage.bracket for stage in self.stages}, reverse=True):
            stages = [stage for stage in self.stages if stage.bracket == bracket]
            steps = [f"{stage.trials} to epoch {stage.last_epoch}" for stage in stages]
            lines.append(f"  bracket {bracket}: " + ", the best ".join(steps))
        return "\n".join(lines)


def plan_of(oracle: Any) -> Plan:
    """Return the plan of a Hyperband oracle of Keras Tuner."""
    stages = []
    for bracket in reversed(range(oracle._get_num_brackets())):
        first = 0
        for step in range(oracle._get_num_rounds(bracket)):
            last = oracle._get_epochs(bracket, step)
            stages.append(Stage(bracket, oracle._get_size(bracket, step), first, last))
            first = last
    return Plan(stages)
