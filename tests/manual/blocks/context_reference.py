"""Section 2.2: a pointer in the database, the bytes at a provider of one's own."""

from flujo.domain.pipeline import Pipeline
from manual.supplied import Flujo

# As printed: 2.2 ----------------------------------------------------------------------------------------
from flujo.domain.models import PipelineContext, ContextReference

class DocContext(PipelineContext):
    # DB stores: { "provider_id": "s3", "key": "bucket/file.pdf" }
    raw_document: ContextReference[bytes]
# --------------------------------------------------------------------------------------------------------


class MyS3Provider:
    """A bucket: all that a provider needs is these two."""

    objects: dict[str, bytes] = {"bucket/file.pdf": b"%PDF-1.7"}

    async def get(self, key: str) -> bytes:
        return self.objects[key]

    async def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data


async def length(context: DocContext) -> int:
    return len(await context.raw_document.get())


my_pipeline = Pipeline()


def build() -> Flujo:
    # As printed: 2.2 ------------------------------------------------------------------------------------
    # Inject providers for ContextReference hydration/persistence
    runner = Flujo(
        pipeline=my_pipeline,
        context_model=DocContext,
        state_providers={"s3": MyS3Provider()},
    )
    # ----------------------------------------------------------------------------------------------------
    return runner
