"""coordsvc: a coordination service with ZooKeeper's semantics and a gRPC API.

What a client program needs is here: `coordsvc.Client`, the values it hands out, and what it raises,
`coordsvc.errors`. Importing this package imports neither grpc nor the replica's storage: a name
is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordsvc import errors as errors
    from coordsvc.client.client import Client as Client
    from coordsvc.client.one_shot import OneShot as OneShot
    from coordsvc.client.options import ClientConfig as ClientConfig
    from coordsvc.client.options import TlsOptions as TlsOptions
    from coordsvc.client.records import OPEN_ACL as OPEN_ACL
    from coordsvc.client.records import Acl as Acl
    from coordsvc.client.records import AuthId as AuthId
    from coordsvc.client.records import Child as Child
    from coordsvc.client.records import ChildrenPage as ChildrenPage
    from coordsvc.client.records import Created as Created
    from coordsvc.client.records import Data as Data
    from coordsvc.client.records import Guard as Guard
    from coordsvc.client.records import Permission as Permission
    from coordsvc.client.records import SessionState as SessionState
    from coordsvc.client.records import Stat as Stat
    from coordsvc.client.records import WatchEvent as WatchEvent
    from coordsvc.client.records import WatchEventType as WatchEventType
    from coordsvc.client.records import WatchGap as WatchGap
    from coordsvc.client.records import WatchGapReason as WatchGapReason
    from coordsvc.client.records import WatchKind as WatchKind
    from coordsvc.client.records import WatchRemoved as WatchRemoved
    from coordsvc.client.transaction import Transaction as Transaction
    from coordsvc.client.watch import Watch as Watch
    from coordsvc.client.watch_stream import WatchStream as WatchStream

__version__ = "0.1.0"

_RECORDS = (
    "Acl AuthId Child ChildrenPage Created Data Guard OPEN_ACL Permission SessionState Stat "
    "WatchEvent WatchEventType WatchGap WatchGapReason WatchKind WatchRemoved"
)

_MODULES = {
    "Client": "client",
    "ClientConfig": "options",
    "OneShot": "one_shot",
    "TlsOptions": "options",
    "Transaction": "transaction",
    "Watch": "watch",
    "WatchStream": "watch_stream",
    **dict.fromkeys(_RECORDS.split(), "records"),
}
"""Name: the module of coordsvc.client that has it."""


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("coordsvc.errors")
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'coordsvc' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"coordsvc.client.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
