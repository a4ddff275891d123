"""`[executors.NAME]`: where callables are executed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from flujo.settings_tables import Section

_KINDS: Mapping[str, tuple[str, ...]] = {
    "size": ("threads", "processes"),
    "address": ("dask", "ray"),
    "batch_size": ("dask", "ray"),
    "code": ("dask", "ray"),
    "tls_ca": ("dask",),
    "tls_cert": ("dask",),
    "tls_key": ("dask",),
}
"""The kinds that a key is for; the others are for all."""


class ExecutorTable(Section):
    """`[executors.NAME]`: executes callables of steps that name it, instead of the threads of the run."""

    kind: Literal["threads", "processes", "dask", "ray"]
    """threads: of this process. processes: of this host, each with an interpreter of its own. dask, ray: the
    workers of a cluster."""
    size: int | None = Field(default=None, ge=1, le=1000, strict=True)
    """How many callables are executed at once; by default as many as the host has cores. A cluster executes
    as many as its workers have room for."""
    max_result: int = Field(default=1_048_576, ge=1, strict=True)
    """The maximum number of bytes of a result, as JSON, that another process may return."""
    address: str | None = Field(default=None, min_length=1)
    """Of a cluster. dask: its scheduler, such as `tcp://10.0.0.5:8786`. ray: by default the one of this
    host."""
    batch_size: int = Field(default=1, ge=1, le=10_000, strict=True)
    """How many callables one task of a cluster executes at most, one after the other. More is faster when
    they take milliseconds."""
    code: Literal["same", "ship"] = "same"
    """same: a worker of a cluster has the project's code, and other code is refused. ship: it is sent the
    project's modules."""
    tls_ca: str | None = None
    """The certificate that has signed those of a Dask cluster: a file, from the project's folder on."""
    tls_cert: str | None = None
    """The certificate of this process for a Dask cluster: a file."""
    tls_key: str | None = None
    """The key of `tls_cert`: a file."""

    def keys_in_use(self) -> Iterable[str]:
        """Return the keys of its kind."""
        return [name for name in type(self).model_fields if self.kind in _KINDS.get(name, (self.kind,))]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        for name, kinds in _KINDS.items():
            if name in self.model_fields_set and self.kind not in kinds:
                meant = " or ".join(f'`kind = "{kind}"`' for kind in kinds)
                why = ": the workers of a cluster decide" if name == "size" else ""
                raise ValueError(f'`{name}` is for {meant}, and this is `kind = "{self.kind}"`{why}')
        if self.kind == "dask":
            self._refuse_for_dask()
        if self.kind == "ray" and self.address is not None and not re.fullmatch(r"[^\s/]+:\d+", self.address):
            raise ValueError(
                f"`address` is {self.address!r}; that of a Ray cluster is `HOST:PORT` of its head, without `ray://`"
            )
        return self

    def _refuse_for_dask(self) -> None:
        if self.address is None:
            raise ValueError(
                '`kind = "dask"` needs `address`, that of its scheduler, such as `tcp://10.0.0.5:8786`'
            )
        scheme = self.address.partition("://")[0]
        if scheme not in _SCHEMES or not re.fullmatch(r"\w+://[^\s/]+", self.address):
            raise ValueError(
                f"`address` is {self.address!r}; that of a Dask scheduler is `tcp://HOST:PORT` or `tls://HOST:PORT`"
            )
        tls = [self.tls_ca, self.tls_cert, self.tls_key]
        if all(tls) != any(tls) or all(tls) != _SCHEMES[scheme]:
            raise ValueError(
                "encryption needs an `address` with `tls://`, and all of `tls_ca`, `tls_cert` and `tls_key`"
            )


_SCHEMES = {"tcp": False, "ws": False, "tls": True, "wss": True}
"""How a Dask scheduler is reached → whether that is encrypted."""


def _executor_name(name: str) -> str:
    if name == "queue":
        raise ValueError("`queue` is the executor of a map over workers, and needs no table")
    if not name.isidentifier() or not name.isascii():
        raise ValueError(f"{name!r} cannot name an executor: write letters, digits and `_`")
    return name


Executors = Mapping[Annotated[str, AfterValidator(_executor_name)], ExecutorTable]
