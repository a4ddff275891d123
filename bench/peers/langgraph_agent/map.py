"""A map of LangGraph: one `Send` for each item, in memory and with the SQLite saver; see `mapped.py`.

Its nodes are executed by threads of one process, whatever the number of workers is.
"""

import operator
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

os.environ["LANGSMITH_TRACING"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from mapped import FUNCTIONS, arguments, fastest_s, say


class State(TypedDict):
    """The number of items, and the results as they come."""

    count: int
    found: Annotated[list[int], operator.add]


def main() -> None:
    """Measure both."""
    _, function, count, _ = arguments()
    call = FUNCTIONS[function]
    graph = StateGraph(State)
    graph.add_node("one", lambda item: {"found": [call(item["n"])]})
    graph.add_conditional_edges(
        START, lambda state: [Send("one", {"n": n}) for n in range(state["count"])], ["one"]
    )
    graph.add_edge("one", END)

    def mapped(compiled: Any, count: int) -> list[int]:
        config = {"configurable": {"thread_id": uuid4().hex}}
        durability = {} if compiled.checkpointer is None else {"durability": "sync"}
        result = compiled.invoke({"count": count, "found": []}, config, **durability)
        return list(result["found"])

    in_memory = graph.compile()
    memory = fastest_s(lambda count: mapped(in_memory, count), count)
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        SqliteSaver.from_conn_string(str(Path(folder) / "state.db")) as saver,
    ):
        durably = graph.compile(checkpointer=saver)
        durable = fastest_s(lambda count: mapped(durably, count), count)
    say("langgraph", memory=memory, durable=durable)


if __name__ == "__main__":
    main()
