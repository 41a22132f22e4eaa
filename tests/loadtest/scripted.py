"""A scripted server in a process of its own: python tests/loadtest/scripted.py [--interval-ms N] [--script a,b,...].

Prints its port. The n-th completion follows the n-th entry of the script, over and over: ``ok``, or a fault. Says on
GET /log when each event of each answer was handed to the socket, by the digest of its prompt. A word is a token to it,
and a chat has seven more. Connections are kept open, as real servers do, but after a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import socket
import time

MODEL = {"id": "scripted", "max_model_len": 100_000, "owned_by": "vllm"}
TEMPLATE_TOKENS = 7


def digest(prompt) -> str:
    return hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16]


def count(prompt) -> int:
    """Tokens of token ids, of words, or of a chat."""
    if isinstance(prompt, str):
        return len(prompt.split())
    if prompt and isinstance(prompt[0], dict):
        return TEMPLATE_TOKENS + sum(count(message["content"]) for message in prompt)
    return len(prompt)


def answer(writer: asyncio.StreamWriter, status: bytes, body: object) -> None:
    text = json.dumps(body).encode()
    writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.interval_s = options.interval_ms / 1000
        self.first_s = options.first_ms / 1000
        self.per_event = options.per_event
        self.foreign = options.foreign
        self.key = options.key
        self.script = itertools.cycle(options.script.split(","))
        self.log: dict[str, dict] = {}
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self.one(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection is to be kept."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length")), 0
        )
        body = json.loads(await reader.readexactly(length) or b"null")
        path = head.split()[1]
        if path == "/log":
            answer(writer, b"200 OK", self.log)
        elif self.key and f"bearer {self.key}" not in head.lower():
            answer(writer, b"401 Unauthorized", {"error": "no"})
        elif path == "/connections":
            answer(writer, b"200 OK", self.connections)
        elif path == "/v1/models":
            answer(writer, b"200 OK", {"data": [{"id": "foreign"} if self.foreign else MODEL]})
        elif path == "/tokenize" and not self.foreign:
            answer(writer, b"200 OK", {"count": count(body.get("prompt") or body["messages"])})
        elif path.startswith("/v1/"):
            return await self.complete(body, writer)
        else:
            answer(writer, b"404 Not Found", {})
        return True

    async def complete(self, body: dict, writer: asyncio.StreamWriter) -> bool:
        now_ns = time.monotonic_ns()
        prompt = body.get("prompt") or body["messages"]
        entry = {"received_ns": now_ns, "due_ns": [], "sent_ns": [], "prompt": prompt}
        self.log[digest(prompt)] = entry
        what = next(self.script)
        if what.isdigit():
            answer(writer, what.encode() + b" No", {"error": "no"})
            return True
        if what == "hang":
            await asyncio.sleep(3600)
        if what == "drop":
            self.reset(writer)
            return False
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        tokens = body["max_tokens"]
        due_ns = now_ns + round(self.first_s * 1e9)
        good = what in ("ok", "wrong-prompt")
        for before in range(0, tokens if good else tokens + 2 * self.per_event, self.per_event):
            while (wait_ns := due_ns - time.monotonic_ns()) > 0:
                await asyncio.sleep(wait_ns / 1e9)
            if before and not good:
                await self.fail(what, writer)
                return False
            total = min(before + self.per_event, tokens)
            finish = "length" if good and total == tokens else None
            data = {"choices": [{"text": " x", "finish_reason": finish}]}
            if not self.foreign or total == tokens:
                data["usage"] = {
                    "prompt_tokens": count(prompt) + (what == "wrong-prompt"),
                    "completion_tokens": total,
                }
            if body.get("return_token_ids"):
                data["choices"][0]["token_ids"] = [1000 + i for i in range(before, total)]
            event = f"data: {json.dumps(data)}\n\n".encode()
            entry["due_ns"].append(due_ns)
            entry["sent_ns"].append(time.monotonic_ns())
            chunk(writer, event)
            due_ns += round(self.interval_s * 1e9)
        chunk(writer, b"data: [DONE]\n\n")
        chunk(writer, b"")
        return True

    async def fail(self, what: str, writer: asyncio.StreamWriter) -> None:
        """After the first event."""
        if what == "reset":
            await writer.drain()
            self.reset(writer)
        elif what == "half-open":
            await asyncio.sleep(3600)
        elif what == "malformed":
            chunk(writer, b"data: {oops\n\n")
        elif what == "error":
            chunk(writer, b'data: {"error": {"message": "engine died"}}\n\n')
        elif what == "drip":
            while True:
                chunk(writer, b": still here\n\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif what == "truncated":
            chunk(writer, b"")  # a proper end of the HTTP body, but not of the stream

    def reset(self, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interval-ms", type=float, default=20)
    parser.add_argument("--first-ms", type=float, default=20)
    parser.add_argument("--per-event", type=int, default=1)
    parser.add_argument("--foreign", action="store_true")
    parser.add_argument("--script", default="ok")
    parser.add_argument("--key", default="", help="in small letters; without it, 401")
    options = parser.parse_args()
    server = await asyncio.start_server(Server(options).handle, "127.0.0.1", 0, backlog=1024, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  (whoever started it needs to know)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
