"""What programs are caught at besides a wrong answer, one sentence each.

By how the sentences begin:

- `altered input`: the input's values or version counter changed.
- `borrowed buffers`: an answer lies in the memory of the input or of the answer before, or a later call changed it.
- `work in flight`: an answer changed after the call had returned and the device was synchronised.
- `threads left alive`: a call started a thread that did not end with it. Pools that the warm-up started are none.
- `cached results`: values seen before are answered faster.
- `invalid output`: the caller's check refused an answer.
- `differing answers`: calls in a row answered otherwise than the same calls one by one: memory that is used again, or
  chance.
- `clocks disagree`: the child's clock tells clearly less than the parent's in half of all rounds.
"""

from __future__ import annotations


class Findings:
    """What was found, each kind once with its first instance and how often it was seen."""

    def __init__(self, who: str = "") -> None:
        self._who = who
        self._seen: dict[str, tuple[str, int]] = {}

    def add(self, kind: str, text: str) -> None:
        first, times = self._seen.get(kind, (text, 0))
        self._seen[kind] = first, times + 1

    def sentences(self) -> tuple[str, ...]:
        """One line each, such as `borrowed buffers: call 4 changed the answer to the call before (11 times)`."""
        return tuple(
            f"{self._who}{kind}: {first}" + (f" ({times} times)" if times > 1 else "")
            for kind, (first, times) in self._seen.items()
        )
