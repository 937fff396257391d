"""Who is asked for what: the servers of a bootstrap, each once, and the authorities that have resources there (gRFC A47). Pure.

A name of the old kind is asked of the top-level servers, whoever named it; one of the new kind of the servers of its authority,
in the order of preference. Servers that are the same in all that the bootstrap says of them are one (BS-12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from meshlib.xds.names import TOP, authority_of, federated, misfit

if TYPE_CHECKING:
    from meshlib.xds.bootstrap import Bootstrap, Server

__all__ = ["Directory"]


class Directory:
    """``servers``: each has a number, its place there. ``of``: an authority's servers, by number, in the order of preference;
    ``eager``: those that leave a server as soon as it cannot be reached (FB-06). ``lenient``: a name of an authority that is not
    there is the top-level servers', as with Envoy; with gRPC it is an error (FE-02). ``moved``: types and names of resources
    that come from a server of their own, each with what stands for its authority (gRFC A102).
    """

    __slots__ = ("eager", "lenient", "moved", "of", "servers")

    def __init__(
        self,
        servers: tuple[Server, ...],
        of: Mapping[str, tuple[int, ...]],
        eager: frozenset[str] = frozenset(),
        *,
        lenient: bool = False,
    ) -> None:
        self.servers = servers
        self.of = dict(of)
        self.eager = eager
        self.lenient = lenient
        self.moved: dict[tuple[str, str], str] = {}

    @classmethod
    def read(cls, bootstrap: Bootstrap, *, lenient: bool) -> Directory:
        """The directory of a bootstrap."""
        lists = {TOP: bootstrap.servers} | {
            name: authority.servers for name, authority in bootstrap.authorities.items()
        }
        servers = bootstrap.all_servers
        numbers = {server: number for number, server in enumerate(servers)}
        of = {name: tuple(dict.fromkeys(numbers[server] for server in each)) for name, each in lists.items()}
        eager = frozenset(name for name, each in bootstrap.authorities.items() if each.eager)
        return cls(servers, of, eager, lenient=lenient)

    def enlist(self, server: Server) -> tuple[str, bool]:
        """What stands for the authority of a server that a resource names, and whether it is new."""
        if server not in self.servers:
            self.servers = (*self.servers, server)
        number = self.servers.index(server)
        key = f"\0{number}"  # no bootstrap has such an authority
        new = key not in self.of
        self.of[key] = (number,)
        return key, new

    def plain(self, short: str, name: str) -> bool:
        """Whether it is the top-level servers', as names of the old kind are."""
        return not federated(name) and (short, name) not in self.moved

    def authority(self, short: str, name: str) -> str | None:
        """The authority that has it; None where there is none of that kind."""
        moved = self.moved.get((short, name)) if self.moved else None
        if moved is not None:
            return moved
        authority = authority_of(name)
        if authority in self.of:
            return authority
        return TOP if self.lenient else None

    def misfit(self, short: str, name: str, full_name: str) -> str:
        """Why nobody is asked for ``name``, in words; ``""`` where somebody is."""
        if self.plain(short, name) or (short, name) in self.moved:
            return ""
        if self.lenient and authority_of(name) not in self.of:
            return ""
        wrong = misfit(name, full_name)
        if not wrong and self.authority(short, name) is None:
            wrong = f"is of the authority {authority_of(name)!r}, which the xDS bootstrap does not have"
        return wrong
