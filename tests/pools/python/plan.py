"""Plans (tests/src/pools/plan.rs), dice, and what a client says."""

import json
import os
import random
import threading
import time

USUAL = 64 << 10
LONGEST = 512 << 10
PATIENCE = 30


def now():
    return time.time_ns() // 1000


class Kind:
    def __init__(self, words):
        self.name, self.servers = words[0], words[1].split(",")
        self.headers = {words[2]: words[3]} if len(words) > 2 else {}


class Request:
    """One request of a random kind, and what its answer has to be."""

    def __init__(self, plan):
        self.kind = random.choice(plan.kinds)
        length = random.randrange(LONGEST if random.randrange(50) == 0 else USUAL)
        self.method, self.target, self.body, self.chunked = "GET", f"/bytes/{length}", None, False
        roll = random.randrange(100)
        if roll < 15:
            self.target = f"/chunked/{length}/5"
        elif roll < 20:
            self.method = "HEAD"
        elif roll < 60:
            stream = random.choice(list(plan.streams.values()))
            start = random.randrange(len(stream) - length)
            self.method, self.target, self.body = "POST", "/mirror", stream[start : start + length]
            self.chunked = roll < 30
        self.length = length
        self.url = random.choice(plan.urls) + self.target
        self.sent = now()
        self.headers = {**plan.headers, **self.kind.headers, "x-kind": self.kind.name, "x-sent": str(self.sent)}

    def pieces(self):
        for at in range(0, self.length, 9000):
            yield self.body[at : at + 9000]

    def problem(self, plan, status, server, got):
        """What is wrong about an answer."""
        due = {"GET": plan.streams.get(server, b"")[: self.length], "HEAD": b"", "POST": self.body}[self.method]
        if status != 200:
            return f"status {status}"
        if server not in self.kind.servers:
            return f"served by {server!r}"
        if got != due:
            return f"{len(got)} bytes of {server} are not the {len(due)} that are due"
        return None


class Plan:
    def __init__(self, path):
        self.headers, self.urls, self.streams, self.kinds = {}, [], {}, []
        self.served, self.lock = {}, threading.Lock()
        with open(path, encoding="utf-8") as lines:
            for word, *rest in map(str.split, lines):
                self.take(word, rest)

    def take(self, word, rest):
        match word:
            case "stop":
                self.stop = rest[0]
            case "workers":
                self.workers = int(rest[0])
            case "pause":
                self.pause = int(rest[0]) / 1000
            case "header":
                self.headers[rest[0]] = rest[1]
            case "url":
                self.urls.append(rest[0])
            case "stream":
                with open(rest[1], "rb") as file:
                    self.streams[rest[0]] = file.read()
            case "kind":
                self.kinds.append(Kind(rest))
            case _:
                raise ValueError(f"unknown line: {word} {rest}")

    def stopped(self):
        return os.path.exists(self.stop)

    def rest(self):
        return random.random() * self.pause

    def failed(self, request, error):
        self.bad("failed", request, f"{type(error).__name__}: {error}")

    def answered(self, request, status, server, got):
        problem = request.problem(self, status, server, got)
        if problem:
            self.bad("wrong", request, problem)
            return
        with self.lock:
            key = (request.kind.name, server)
            self.served[key] = self.served.get(key, 0) + 1

    def bad(self, outcome, request, error):
        text = f"{request.method} {request.target} of {request.length} bytes"
        line = {"outcome": outcome, "kind": request.kind.name, "request": text, "error": error}
        self.say({**line, "sent": request.sent, "ended": now()})

    def say(self, line):
        with self.lock:
            print(json.dumps(line), flush=True)

    def end(self):
        for (kind, server), count in self.served.items():
            self.say({"outcome": "served", "kind": kind, "server": server, "count": count})
        self.say({"outcome": "end"})
