"""Reading the body of a request before the route that answers it does."""

from collections import deque
from collections.abc import Iterable

from starlette.types import Message, Receive


async def read_messages(receive: Receive, size_limit: int) -> list[Message]:
    """Read a whole body, or a little more than ``size_limit`` bytes of a longer one, which its route refuses."""
    messages: list[Message] = []
    size = 0
    while size <= size_limit:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return messages


def put_back(messages: Iterable[Message], receive: Receive) -> Receive:
    """A ``receive`` that gives ``messages`` once more, and then what ``receive`` gives."""
    unread = deque(messages)

    async def receive_again() -> Message:
        return unread.popleft() if unread else await receive()

    return receive_again
