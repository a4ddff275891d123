"""How often the interval of `flujo plan` holds the next run, on recorded runs.

    python bench/plan.py
    python bench/plan.py --runs 200 --seed 7

The runs are real ones on a SQLite file. A scripted agent answers, with a random number of tokens and of
iterations. Before each run from the 20th on, the interval of those before it is read from the database.
"""

import argparse
import asyncio
import random
import tempfile
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from flujo import Flujo, Pipeline, Step
from flujo.domain.agents import Ask, Reply
from flujo.domain.steps import CallableRef, LoopStep
from flujo.domain.usage import Usage
from flujo.services.forecast.history import ENOUGH, history_of
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore


@dataclass
class Writer:
    """Answers with a random number of tokens, and with whether that is enough."""

    chance: random.Random
    wants_context: bool = field(default=False, init=False)

    async def ask(self, _: Ask) -> Reply:
        """Answer."""
        tokens = int(self.chance.lognormvariate(6, 0.8))
        used = Usage(input_tokens=300, output_tokens=tokens, requests=1, cost_micro_usd=75 + 2 * tokens)
        return Reply(output=self.chance.random() < 0.4, usage=used)


async def _share(uri: str, runs: int, seed: int) -> float:
    """Return the share of runs that lay in the interval of the runs before them."""
    asks = Step("ask", call=CallableRef("bench:writer", Writer(random.Random(seed))))
    loop = LoopStep("loop", [asks], until="previous", max_iterations=6, on_limit="continue")
    pipeline = Pipeline([loop], name="letter")
    inside = 0
    async with aclosing(SqlStateStore(uri)) as store, Flujo(pipeline, store=store) as runner:
        for number in range(runs):
            history = await history_of(store, "letter") if number >= ENOUGH else None
            result = await runner.run_result_async(number)
            cost = result.usage.cost_usd or 0.0
            if history is not None and history.cost_usd is not None:
                inside += history.cost_usd.low <= cost <= history.cost_usd.high
    return inside / (runs - ENOUGH)


def main() -> None:
    """Measure, and print the share."""
    parser = argparse.ArgumentParser(description="calibration of `flujo plan`")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'state.db'}"
        migrations.migrate(uri)
        share = asyncio.run(_share(uri, given.runs, given.seed))
    counted = given.runs - ENOUGH
    held = f"{100 * share:.1f} % of {counted} runs lay in the interval of the runs before them"
    print(f"{held}; goal: 85 to 95")


if __name__ == "__main__":
    main()
