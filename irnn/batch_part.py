"""What of a batch each of several processes that train together computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """The part `index` of `of` equal ones; the whole by default."""

    index: int = 0
    of: int = 1

    def rows(self, count: int) -> slice:
        """Which of `count` rows: neighbours, as many as the others have or one more; none where there are fewer rows
        than parts."""
        return slice(self.index * count // self.of, (self.index + 1) * count // self.of)

    def owns(self, count: int) -> bool:
        """Whether any of `count` rows is this part's."""
        rows = self.rows(count)
        return rows.start < rows.stop

    def rows_to_train(self, count: int) -> slice:
        """As `rows`, but a part that owns none computes the first one, which is not counted: processes that train
        together all take the step."""
        return self.rows(count) if self.owns(count) else slice(0, 1)
