"""The index of a studies folder: its tables, through SQLAlchemy."""

from __future__ import annotations

import enum
import sqlite3
import time
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    DateTime,
    Enum,
    ForeignKey,
    String,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: Seconds to wait for other writers.
PATIENCE = 30


class State(enum.Enum):
    """Where a label version stands in review."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"


#: States of labels that somebody stands for.
ACCEPTED = (State.SUBMITTED, State.APPROVED)


class UtcDateTime(TypeDecorator):
    """A moment in UTC; SQLite forgets time zones, so reading puts it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value, dialect):
        """The moment with its time zone."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of the tables."""


class StudyRow(Base):
    """One image."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str]
    image: Mapped[str]
    dicom: Mapped[str | None]
    added: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelRow(Base):
    """One version of one structure's label in one study."""

    __tablename__ = "labels"
    __table_args__ = (UniqueConstraint("study", "key", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    key: Mapped[str]
    structure: Mapped[str]
    number: Mapped[int]
    file: Mapped[str]
    mask: Mapped[str] = mapped_column(String(32))
    voxels: Mapped[int]
    author: Mapped[str]
    made: Mapped[datetime] = mapped_column(UtcDateTime)
    parent: Mapped[int | None]
    model: Mapped[str | None]
    model_version: Mapped[str | None]
    prompts: Mapped[dict | None] = mapped_column(JSON)
    seconds: Mapped[float | None]
    edits: Mapped[int | None]
    comment: Mapped[str]
    state: Mapped[State] = mapped_column(Enum(State, values_callable=lambda e: [s.value for s in e]))


def open_index(url: str | URL) -> Engine:
    """Connect to the index and make its tables where they are missing.

    SQLite runs in WAL mode with full syncing, and every transaction takes the write lock when it
    begins, so that two writers never number the same version.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    Base.metadata.create_all(engine)
    return engine


def _set_up_sqlite(connection, _record) -> None:
    connection.isolation_level = None  # leave BEGIN to the listener above
    # with secure_delete nothing of what is removed stays in the file
    for pragma in (f"busy_timeout={1000 * PATIENCE}", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    _write_ahead(connection)


def _write_ahead(connection) -> None:
    """Switch to WAL mode. SQLite does not wait for others that do so at the same moment, so we do."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if time.monotonic() > end or not any(word in str(error) for word in ("locked", "busy")):
                raise
            time.sleep(0.01)
