"""What the engine remembers: JSON documents in SQLite, and the events of this run."""

from drivetrain_engine.state.documents import State, Table
from drivetrain_engine.state.events import Events, Subscription
from drivetrain_engine.state.identifiers import new_id

__all__ = ["Events", "State", "Subscription", "Table", "new_id"]
