"""Section 2.1 and 2.3: a typed context, and a runner with its full type."""

from dataclasses import dataclass

from manual.supplied import Flujo

# As printed: 2.1 ----------------------------------------------------------------------------------------
from flujo.domain.models import PipelineContext
from pydantic import Field

class ResearchContext(PipelineContext):
    """Context for biomedical research."""
    # Indexed in Postgres for fast filtering
    user_id: str
    # Validated structure
    source_type: str = "unknown"
    results: list[dict] = Field(default_factory=list)
# --------------------------------------------------------------------------------------------------------


@dataclass
class QueryOutput:
    """What the runner's pipeline gives."""

    hits: int


def build() -> Flujo[str, QueryOutput, ResearchContext]:
    # As printed: 2.3 ------------------------------------------------------------------------------------
    # Flujo[InputType, OutputType, ContextType]
    runner: Flujo[str, QueryOutput, ResearchContext] = Flujo(...)
    # ----------------------------------------------------------------------------------------------------
    return runner
