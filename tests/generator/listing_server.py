"""The fake server with `GET /v1/models` and `GET /metrics`, that can be started again at the same port."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.fake_openai import Answer, FakeServer, Received, Reply


class ListingServer(FakeServer):
    """`models`: names that it lists; None: it has no such list. `metrics`: text, or None."""

    def __init__(
        self,
        answer: Answer = lambda body: Reply(),
        models: Sequence[str] | None = ("m-1",),
        metrics: str | None = None,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(answer, api_key)
        self.models = models
        self.metrics = metrics
        self.asked: list[Received] = []
        """Requests that were no completions."""
        self._own_key = api_key
        self._port = port

    def _run(self) -> None:
        self._loop.run_until_complete(self.serve(self._port))
        self._loop.close()

    def _reply(self, received: Received) -> Reply:
        if received.path == "/v1/chat/completions":
            return super()._reply(received)
        self.asked.append(received)
        if self._own_key is not None and received.headers.get("authorization") != f"Bearer {self._own_key}":
            return Reply("", status=401, error={"message": "no such key"})
        if received.path == "/v1/models" and self.models is not None:
            data = [{"id": name, "object": "model"} for name in self.models]
            return Reply("", body=json.dumps({"object": "list", "data": data}).encode())
        if received.path == "/metrics" and self.metrics is not None:
            return Reply("", body=self.metrics.encode())
        return Reply("", status=404, error={"message": f"nothing at {received.path}"})
