"""What the scenarios of all Python clients share."""

import json
import os
import sys
import traceback
import urllib.request

ASKONCE = os.environ["ASKONCE_URL"]
UPSTREAM = os.environ["UPSTREAM_URL"]

scenarios = []


def scenario(function):
    scenarios.append(function)
    return function


def calls():
    """How often the provider was called so far."""
    with urllib.request.urlopen(UPSTREAM + "/calls") as answer:
        return json.load(answer)["total"]


class expect_calls:
    """That so many calls reach the provider in between."""

    def __init__(self, expected):
        self.expected = expected

    def __enter__(self):
        self.before = calls()

    def __exit__(self, kind, *_):
        if kind is None:
            made = calls() - self.before
            assert made == self.expected, f"{made} calls of the provider, expected {self.expected}"


OWN = {"id", "created", "created_at", "askonce", "request_id", "_request_id"}


def essence(value):
    """A document without what each response has of its own."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: essence(inner) for name, inner in value.items() if name not in OWN}
    if isinstance(value, (list, tuple)):
        return [essence(inner) for inner in value]
    return value


def same(one, other, what="answers"):
    one, other = essence(one), essence(other)
    if isinstance(one, list):
        assert len(one) == len(other), f"{what}: {len(one)} and {len(other)}"
        for at, pair in enumerate(zip(one, other)):
            assert pair[0] == pair[1], f"{what} differ at {at}: {pair[0]} and {pair[1]}"
    assert one == other, f"{what} differ: {one} and {other}"


def run(client):
    failed = 0
    for function in scenarios:
        try:
            function()
            print(f"ok      {client}: {function.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {client}: {function.__name__}")
            traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    sys.exit(1 if failed else 0)
