"""Random programs with effects in the outside world, for `flujo worker --import durability.program_worker`.

`PROGRAMS_WORLD` is the world's folder, `PROGRAMS_SEEDS` the seeds, joined by commas. SIGUSR1 writes the stack of every
thread to `worker-PID.trace` there.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import flujo
from durability.random_programs import (
    ASLEEP,
    BEHIND,
    EARLY,
    HUMAN,
    NEXT,
    SPREAD,
    TOLD,
    lost_reply,
    misbehaviour,
    parts,
    random_program,
    tree,
    unsent,
)
from durability.world import World

if TYPE_CHECKING:
    from durability.random_programs import Part
    from flujo.domain.pipeline import Pipeline

SLEEP_S = 0.3
MOST_S = 0.02
"""The maximum duration of a step, long enough to interrupt it."""


def program_of(seed: int) -> tuple[Part, ...]:
    """Return the program of a seed, the same in every process."""
    return random_program(
        Random(seed), also=(*HUMAN, *ASLEEP, *TOLD, *2 * BEHIND, *EARLY, *NEXT, *2 * SPREAD)
    )


def pipeline_of(seed: int, folder: Path) -> Pipeline:
    """Return the program of a seed as a pipeline with effects in the world of `folder`."""
    program, world, chance = program_of(seed), World(folder), Random()
    flaky = {part.name for part in parts(program) if part.kind == "flaky"}

    async def act(name: str, data: int, key: str) -> None:
        await asyncio.sleep(chance.uniform(0, MOST_S))
        if name in flaky and _first(folder / f"failed-{seed}-{name}-{data}"):
            raise misbehaviour(data)
        if key and data % 4 == 1 and _first(folder / f"unsent-{seed}-{name}-{data}"):
            raise unsent(data // 4)
        world.effect(f"{seed}:{name}:{key}", os.getpid())
        if key and data % 3 == 1 and _first(folder / f"lost-{seed}-{name}-{key}"):
            raise lost_reply(data // 3)
        await asyncio.sleep(chance.uniform(0, MOST_S))

    return tree(
        program,
        act,
        name=f"program-{seed}",
        first=lambda what: _first(folder / f"first-{seed}-{what}"),
        sleep_s=SLEEP_S,
    )


def _first(mark: Path) -> bool:
    """Return whether this is the first visit by any process."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _register(folder: Path, seeds: list[int]) -> None:
    trace = (folder / f"worker-{os.getpid()}.trace").open("w", encoding="utf-8")
    faulthandler.register(signal.SIGUSR1, file=trace, all_threads=True)
    for seed in seeds:
        flujo.register(partial(pipeline_of, seed, folder))


if "PROGRAMS_WORLD" in os.environ:
    _register(
        Path(os.environ["PROGRAMS_WORLD"]), [int(seed) for seed in os.environ["PROGRAMS_SEEDS"].split(",")]
    )
