"""`[serve]` of flujo.toml: the pages and the API."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field

from flujo.settings_tables import Section


class ServeTable(Section):
    """`[serve]`: where `flujo serve` listens, and what it lets people do."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address that it listens on."""
    port: int = Field(default=8400, ge=0, le=65535)
    """The port; 0 for a free one."""
    read_only: bool = False
    """Whether nothing can be changed through the server."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it, so that its user needs no login."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
