"""The four kinds of calls over a channel of the mesh to three servers: blocking, then with asyncio."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
from guide import Area, GuideStub, Note, Point, serving

import meshlib
import meshlib.grpc

WALK = [Point(x=x, y=y) for x, y in [(1, 1), (2, 5), (4, 4)]]
NOTES = [Note(at=Point(x=1, y=1), text=text) for text in ("first", "second", "third")]


def blocking(mesh: meshlib.Mesh) -> None:
    with meshlib.grpc.channel("guide", mesh=mesh) as channel:
        stub = GuideStub(channel)
        answers = Counter(stub.Lookup(Point(x=1, y=1), timeout=5).guide for _ in range(30))
        print("thirty calls:", dict(sorted(answers.items())))
        try:
            stub.Lookup(Point(x=9, y=9), timeout=5)
        except grpc.RpcError as error:
            print("a place that is not there:", error.code().name, "-", error.details())

        area = Area(low=Point(x=0, y=0), high=Point(x=3, y=9))
        print("in the area:", [feature.name for feature in stub.Browse(area, timeout=5)])

        walk, call = stub.Record.with_call(iter(WALK), timeout=5)
        info = meshlib.call_info(call)
        assert info is not None
        print(
            f"a walk of {walk.points} points is {walk.length} long; {info.via}, attempts: {len(info.attempts)}"
        )

        found = [note.text for note in stub.Chat(iter(NOTES), timeout=5)]
        print("notes found:", found)


async def with_asyncio(mesh: meshlib.Mesh) -> None:
    async with meshlib.grpc.aio.channel("guide", mesh=mesh) as channel:
        stub = GuideStub(channel)
        answers = await asyncio.gather(*(stub.Lookup(point, timeout=5) for point in WALK))
        print("at once:", [answer.name for answer in answers])

        chat: Any = stub.Chat(timeout=5)
        for note in NOTES:
            await chat.write(note)
        await chat.done_writing()
        print("notes found:", [note.text async for note in chat], "-", (await chat.code()).name)


def main() -> None:
    with (
        serving("one") as one,
        serving("two") as two,
        serving("three") as three,
        meshlib.Mesh({"services": {"guide": {"endpoints": [one, two, three]}}}) as mesh,
    ):
        blocking(mesh)
        asyncio.run(with_asyncio(mesh))


if __name__ == "__main__":
    main()
