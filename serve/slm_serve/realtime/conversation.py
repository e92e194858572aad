"""The items of a realtime conversation: what clients see of them, and what the model sees."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any, Literal

from slm_serve.errors import RequestError
from slm_serve.prompt import Ids, Role, Turn


@dataclass(frozen=True)
class Item:
    """One message.

    Attributes:
        id: Such as ``item_5f0c...``.
        role: Who speaks.
        parts: What the model sees.
        content: What clients see.
        spoken: Whether a recording is in it.
        status: Whether it is complete.
        seconds: For how long an answer plays.
    """

    id: str
    role: Role
    parts: tuple[str | Ids, ...]
    content: list[dict[str, Any]]
    spoken: bool = False
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    seconds: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Bytes that the item takes, roughly: a character is one, a token four."""
        return sum(len(part) if isinstance(part, str) else 4 * len(part.ids) for part in self.parts)

    def shown(self) -> dict[str, Any]:
        """Return the item as clients see it."""
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "role": self.role,
            "status": self.status,
            "content": self.content,
        }


def new_id(kind: str) -> str:
    """Return an id that nobody can guess."""
    return f"{kind}_{uuid.uuid4().hex}"


MOST_ITEMS = 1024
"""Most items of a conversation."""

MOST_BYTES = 4 * 2**20
"""Most bytes that the items of a conversation take, at one byte a character and four a token."""


class Conversation:
    """Items in order, bounded in number and size; the size is a running total."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._n_bytes = 0

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item at the end, or behind another (``root`` is the beginning).

        Returns:
            Id of the item in front of it.

        Raises:
            RequestError: The other item does not exist, the id is taken, or the conversation is full.
        """
        size = item.n_bytes
        if len(self._items) >= MOST_ITEMS or self._n_bytes + size > MOST_BYTES:
            text = f"the conversation is full: {MOST_ITEMS} items and {MOST_BYTES // 2**20} MiB at most; delete some."
            raise RequestError(text, "item", "conversation_full")
        if any(item.id == other.id for other in self._items):
            raise RequestError(f"an item {item.id!r} exists already.", "item.id")
        position = len(self._items)
        if after is not None:
            position = 0 if after == "root" else self._find(after, "previous_item_id") + 1
        self._items.insert(position, item)
        self._n_bytes += size
        return self._items[position - 1].id if position else None

    def replace(self, item: Item) -> str | None:
        """Put what an item became into its place; one that was taken out meanwhile stays out.

        Returns:
            Id of the item in front of it.
        """
        for position, other in enumerate(self._items):
            if other.id == item.id:
                self._put(position, item)
                return self._items[position - 1].id if position else None
        return None

    def get(self, item_id: str) -> Item:
        """Return an item.

        Raises:
            RequestError: There is none of that id.
        """
        return self._items[self._find(item_id, "item_id")]

    def remove(self, item_id: str) -> None:
        """Take an item out.

        Raises:
            RequestError: There is none of that id.
        """
        position = self._find(item_id, "item_id")
        self._n_bytes -= self._items[position].n_bytes
        del self._items[position]

    def truncate(self, item_id: str, audio_end_ms: int, first_unit: int, n_units: int) -> None:
        """Let the model forget what of an answer was not heard: the ids behind the last unit that was.

        Args:
            item_id: A spoken answer.
            audio_end_ms: How much of its sound was heard.
            first_unit: Token id of unit 0.
            n_units: Number of units.

        Raises:
            RequestError: It does not exist, is no spoken answer, or is shorter.
        """
        position = self._find(item_id, "item_id")
        item = self._items[position]
        if item.role != "assistant" or not item.seconds:
            raise RequestError(f"{item_id!r} is not a spoken answer.", "item_id")
        if audio_end_ms > 1000 * item.seconds + 1:
            text = f"the answer lasts {1000 * item.seconds:.0f} ms; audio_end_ms is behind its end."
            raise RequestError(text, "audio_end_ms")
        ids = [token_id for part in item.parts if isinstance(part, Ids) for token_id in part.ids]
        units_at = [at for at, token_id in enumerate(ids) if first_unit <= token_id < first_unit + n_units]
        n_heard = int(len(units_at) * audio_end_ms / (1000 * item.seconds))
        heard = ids[: units_at[n_heard - 1] + 1] if n_heard else []
        content = [{key: value for key, value in part.items() if key != "transcript"} for part in item.content]
        cut = replace(
            item, parts=(Ids(tuple(heard)),), content=content, seconds=audio_end_ms / 1000, status="incomplete"
        )
        self._put(position, cut)

    def turns(self, instructions: str | None) -> list[Turn]:
        """Return what the model sees."""
        turns = [Turn("system", (instructions,))] if instructions else []
        turns += [Turn(item.role, item.parts) for item in self._items]
        if not self._items:
            # the model speaks first; chat templates want a turn to answer
            turns.append(Turn("user", ("",)))
        return turns

    @property
    def asks_aloud(self) -> bool:
        """Whether the item to answer holds a recording: its answer begins with what was heard."""
        return bool(self._items) and self._items[-1].role == "user" and self._items[-1].spoken

    @property
    def latest(self) -> Item | None:
        """The last item."""
        return self._items[-1] if self._items else None

    def _put(self, position: int, item: Item) -> None:
        self._n_bytes += item.n_bytes - self._items[position].n_bytes
        self._items[position] = item

    def _find(self, item_id: str, param: str) -> int:
        for position, item in enumerate(self._items):
            if item.id == item_id:
                return position
        raise RequestError(f"there is no item {item_id!r}.", param, "item_not_found")
