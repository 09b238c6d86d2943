"""Calls whose answers are read later, in the order in which they were sent: RFC 9112, 9.3.2.

A fixture needs several calls that build on each other. Sent in one go they cost one wait instead of
one for each, and the service works on them while the test run does something else.
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING, Any

from pytest_sandbox.client.connection import Connection, ProtocolError
from pytest_sandbox.client.transport import Answer, Request

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client
    from pytest_sandbox.errors import SandboxError


class Pipeline:
    """A connection of its own to the client's service; starts the service if need be."""

    def __init__(self, client: Client) -> None:
        self._address = client.service.host
        self._connection = Connection(client.service.connect())
        self._unanswered: deque[Request] = deque()

    @property
    def unanswered(self) -> int:
        """How many calls have no answer yet, or one that was not received."""
        return len(self._unanswered)

    def send(self, *requests: Request) -> None:
        """Send the calls, one after another. Raises ServiceUnavailable when nobody reads them."""
        try:
            self._connection.socket.sendall(b"".join(map(_whole, requests)))
        except OSError as error:
            raise self._lost(requests[0], error) from error
        self._unanswered.extend(requests)

    def receive(self) -> Any:
        """The decoded answer to the oldest call that has none yet; waits for it.

        Raises what the service answers with, or ServiceUnavailable when it is gone.
        """
        request = self._unanswered.popleft()
        try:
            head = self._connection.read_head()
            answer = Answer(head.status, head.headers, self._connection.read_body(head))
        except (OSError, ProtocolError) as error:
            raise self._lost(request, error) from error
        if answer.status >= 400:
            from pytest_sandbox.errors import error_from_answer

            raise error_from_answer(answer.status, answer.body)
        return answer.json()

    def drop_answers(self) -> None:
        """Wait for the answers to all calls so far, whatever they say."""
        from pytest_sandbox.errors import SandboxError, ServiceUnavailable

        while self._unanswered:
            try:
                self.receive()
            except ServiceUnavailable:
                raise
            except SandboxError:
                continue

    def has_answer(self) -> bool:
        """Whether `receive` would find at least the beginning of an answer."""
        poll = select.poll()
        poll.register(self._connection.socket, select.POLLIN)
        return self._connection.buffered or bool(poll.poll(0))

    def close(self) -> None:
        """Hang up: calls without an answer may still be carried out, or not."""
        self._connection.close()

    def _lost(self, request: Request, error: Exception) -> SandboxError:
        from pytest_sandbox.errors import ServiceUnavailable

        return ServiceUnavailable(
            f"the sandbox service at {self._address}",
            f"it went away during {request.method} {request.target.partition('?')[0]}: {error}",
            "sandboxctl service logs shows what happened",
        )


def _whole(request: Request) -> bytes:
    assert isinstance(request.body, bytes), "a body of unknown length cannot be sent ahead"
    return request.head() + request.body
