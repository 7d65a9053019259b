"""The tables of a ledger, and how an older file comes to have them."""

from __future__ import annotations

APPLICATION_ID = 0x656D6E64
"""`emnd` in ASCII, in the file's header: distinguishes a ledger from other SQLite files."""

_FIRST = (
    """
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # The columns that end in _key are normalised forms: what makes two edits one statement.
    """
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        prompt TEXT NOT NULL,
        subject TEXT NOT NULL,
        target TEXT NOT NULL,
        original TEXT,
        relation TEXT,
        probes TEXT NOT NULL,
        author TEXT NOT NULL,
        reason TEXT NOT NULL,
        source TEXT NOT NULL,
        time TEXT NOT NULL,
        changed TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('proposed', 'active', 'superseded', 'reverted')),
        before TEXT CHECK (before IN ('proposed', 'active')),
        parent TEXT REFERENCES entries (id) DEFERRABLE INITIALLY DEFERRED,
        superseded_by TEXT REFERENCES entries (id) DEFERRABLE INITIALLY DEFERRED,
        taken_with TEXT REFERENCES entries (id) DEFERRABLE INITIALLY DEFERRED,
        text_key TEXT NOT NULL,
        subject_key TEXT NOT NULL,
        relation_key TEXT,
        target_key TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX entries_text ON entries (text_key)",
    "CREATE INDEX entries_subject ON entries (subject_key, relation_key)",
    "CREATE INDEX entries_parent ON entries (parent)",
    "CREATE INDEX entries_superseded_by ON entries (superseded_by)",
    "CREATE INDEX entries_taken_with ON entries (taken_with)",
    """
    CREATE TABLE tags (
        edit TEXT NOT NULL REFERENCES entries (id),
        tag TEXT NOT NULL,
        PRIMARY KEY (edit, tag)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        time TEXT NOT NULL,
        what TEXT NOT NULL,
        edit TEXT REFERENCES entries (id),
        author TEXT NOT NULL,
        reason TEXT NOT NULL,
        details TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX events_edit ON events (edit)",
    "CREATE INDEX events_time ON events (time)",
    """
    CREATE TABLE solved (
        base TEXT NOT NULL,
        name TEXT NOT NULL,
        method TEXT NOT NULL,
        edit TEXT REFERENCES entries (id),
        config TEXT NOT NULL,
        details TEXT NOT NULL,
        time TEXT NOT NULL,
        digest TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (base, name)
    ) STRICT
    """,
    "CREATE INDEX solved_edit ON solved (edit)",
    """
    CREATE TABLE builds (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        time TEXT NOT NULL,
        base TEXT NOT NULL,
        method TEXT NOT NULL,
        config TEXT NOT NULL,
        patch_hash TEXT NOT NULL,
        path TEXT NOT NULL,
        seconds REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE build_edits (
        build TEXT NOT NULL REFERENCES builds (id),
        edit TEXT NOT NULL REFERENCES entries (id),
        PRIMARY KEY (build, edit)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX build_edits_edit ON build_edits (edit)",
    """
    CREATE TABLE measurements (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        build TEXT NOT NULL REFERENCES builds (id),
        time TEXT NOT NULL,
        suite TEXT NOT NULL,
        results TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX measurements_build ON measurements (build)",
)

# An edit with translations is for several statements.
_STATEMENTS = (
    "ALTER TABLE entries ADD COLUMN language TEXT",
    "ALTER TABLE entries ADD COLUMN translations TEXT NOT NULL DEFAULT '[]'",
    """
    CREATE TABLE statements (
        edit TEXT NOT NULL REFERENCES entries (id),
        text_key TEXT NOT NULL,
        subject_key TEXT NOT NULL,
        relation_key TEXT,
        target_key TEXT NOT NULL
    ) STRICT
    """,
    """
    INSERT INTO statements
        SELECT id, text_key, subject_key, relation_key, target_key FROM entries ORDER BY number
    """,
    "DROP INDEX entries_text",
    "DROP INDEX entries_subject",
    "ALTER TABLE entries DROP COLUMN text_key",
    "ALTER TABLE entries DROP COLUMN subject_key",
    "ALTER TABLE entries DROP COLUMN relation_key",
    "ALTER TABLE entries DROP COLUMN target_key",
    "CREATE INDEX statements_edit ON statements (edit)",
    "CREATE INDEX statements_text ON statements (text_key)",
    "CREATE INDEX statements_subject ON statements (subject_key, relation_key)",
)

_NAMES = (
    "ALTER TABLE entries RENAME COLUMN before TO previous_status",
    "ALTER TABLE entries RENAME COLUMN taken_with TO cascade_root",
    "DROP INDEX entries_taken_with",
    "CREATE INDEX entries_cascade_root ON entries (cascade_root)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _STATEMENTS, _NAMES)
"""The statements that bring a file of version i to version i + 1. A new file has version 0 and
goes through all of them, so that a fresh ledger and a migrated one are alike."""

VERSION = len(MIGRATIONS)
"""The version that this code reads and writes; stored in `PRAGMA user_version`."""
