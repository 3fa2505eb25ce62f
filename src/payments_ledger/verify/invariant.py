"""What an invariant is: one SQL query over the rows of one table, its subject, that says which of them are broken.

One query serves the whole database (hash joins) and a handful of rows (indexes): it reads those rows of its subject
that meet a condition of the runner, and joins to them whatever they must agree with. Parameters of all: `events_since`
and `audit_since`, before which rows may have been dropped (NULL: none were), and the bounds that the runner was given.
"""

from dataclasses import dataclass

FAILURES_SHOWN = 20
# Begins a condition on a table whose index begins with the tenant.
OF_ALL_TENANTS = "tenant_id = ANY (ARRAY(SELECT tenant_id FROM tenants))"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A table whose rows are examined; `key` are the columns of its primary key with their types.

    `since` picks the rows written since the parameter `since`. `changed` does so by an index, and may pick more.
    `weight` is the cost of examining a row, in rows of the other tables.
    """

    table: str
    key: tuple[tuple[str, str], ...]
    since: str
    changed: str
    weight: int = 1

    @property
    def is_of_tenants(self) -> bool:
        """Whether each row belongs to a tenant; the key then begins with it."""
        return self.key[0][0] == "tenant_id"

    def among(self) -> str:
        """The condition that picks the rows whose keys are in `keys`, a JSON array of arrays of strings."""
        values = ", ".join(f"(wanted.key->>{number})::{type_}" for number, (_, type_) in enumerate(self.key))
        return f"({self._columns}) IN (SELECT {values} FROM json_array_elements(%(keys)s::json) AS wanted (key))"  # noqa: S608

    def page(self, key_length: int) -> str:
        """The condition that picks the first `page_rows` rows behind `after`, the first values of a key as strings."""
        # The limit stands where the planner sees it: for few rows it reads no whole table to join them.
        return f"({self._columns}) IN (SELECT {self._columns} FROM {self._page(key_length)})"  # noqa: S608

    def last_of_page(self, key_length: int) -> str:
        """The query of the page's last key, as an array of strings."""
        texts = ", ".join(f"{name}::text" for name, _ in self.key)
        descending = ", ".join(f"{name} DESC" for name, _ in self.key)
        return f"SELECT ARRAY[{texts}] FROM {self._page(key_length)} ORDER BY {descending} LIMIT 1"  # noqa: S608

    def _page(self, key_length: int) -> str:
        columns = ", ".join(name for name, _ in self.key[:key_length])
        values = ", ".join(
            f"(%(after)s::text[])[{number}]::{type_}"
            for number, (_, type_) in enumerate(self.key[:key_length], start=1)
        )
        condition = f"({columns}) > ({values})" if key_length else "true"
        return f"""(
            SELECT {self._columns} FROM {self.table} WHERE {condition} ORDER BY {self._columns} LIMIT %(page_rows)s
        ) AS page"""  # noqa: S608

    @property
    def _columns(self) -> str:
        return ", ".join(name for name, _ in self.key)


@dataclass(frozen=True, slots=True, eq=False)
class Invariant:
    """Its name, what it says in one sentence, and the query that examines the rows of its subject.

    `rows` selects from `subject`: first the subject's key, then what was found and what was expected, at last `broken`.
    `where` leaves out rows that the invariant says nothing about; `changed` takes the place of the subject's where
    time alone breaks an invariant.
    """

    name: str
    statement: str
    subject: Subject
    rows: str
    where: str = "true"
    changed: str | None = None

    def counting(self, condition: str) -> str:
        """The query of `examined` and `broken` among the rows that meet the condition."""
        return f"SELECT count(*), count(*) FILTER (WHERE broken) FROM ({self._examining(condition)}) AS examined"  # noqa: S608

    def showing(self, condition: str) -> str:
        """The query of the broken rows, as JSON objects; its parameter `limit` bounds them."""
        return f"SELECT to_json(found) FROM ({self._examining(condition)}) AS found WHERE broken LIMIT %(limit)s"  # noqa: S608

    def _examining(self, condition: str) -> str:
        # All parts are constants of the modules.
        subject = f"SELECT * FROM {self.subject.table} WHERE ({self.where}) AND ({condition})"  # noqa: S608
        return self.rows.replace("SUBJECT", f"({subject}) AS subject")
