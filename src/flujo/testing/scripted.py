"""`ScriptedAgent`: an agent that answers from a script and counts what it was asked."""

from flujo.agents.scripted import ScriptedAgent

__all__ = ["ScriptedAgent"]
