"""Memory: tasks that do not fit beside each other wait."""

import asyncio

from serve.engine import Room


def test_two_tasks_wait_for_each_other_when_both_do_not_fit():
    async def scene() -> list[str]:
        room, said = Room(size=100), []

        async def task(name: str, num_bytes: int, seconds: float) -> None:
            async with room.for_bytes(num_bytes):
                said.append(name)
                await asyncio.sleep(seconds)
            said.append(f"{name} ends")

        await asyncio.gather(task("a", 60, 0.05), task("b", 50, 0.05), task("c", 40, 0.2))
        await task("huge", 1000, 0.0)
        return said

    assert asyncio.run(scene()) == ["a", "c", "a ends", "b", "b ends", "c ends", "huge", "huge ends"]
