"""What other people's readers find in a lake, and what a foreign writer does to it. See scripts/lake.sh."""

import json
import sys

import duckdb
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog

NAMESPACE = "streamgauge"
PLACE = ["_source", "_topic", "_topic_partition", "_offset", "_part"]


def catalog(database, warehouse):
    return SqlCatalog("streamgauge", uri=f"sqlite:///{database}", warehouse=f"file://{warehouse}")


def facts(rows):
    """Counts and sums of an Arrow table, once by Arrow and once by DuckDB; they must agree."""
    # The sum of digests is beyond 64 bits, and says nothing.
    numbers = [f.name for f in rows.schema if str(f.type).startswith(("int", "decimal")) and f.name != "_digest"]
    ours = {name: str(pc.sum(rows[name]).as_py() or 0) for name in numbers}
    sums = ", ".join(f'coalesce(sum("{name}"), 0)::varchar' for name in ours) or "1"
    places = ", ".join(f'"{name}"' for name in PLACE if name in rows.schema.names) or "1"
    theirs = duckdb.sql(f"select count(*), count(distinct ({places})), {sums} from rows").fetchall()[0]
    assert theirs[0] == rows.num_rows, (theirs, rows.num_rows)
    for (name, value), other in zip(ours.items(), theirs[2:]):
        assert float(value) == float(other), (name, value, other)
    found = {"rows": rows.num_rows, "places": theirs[1], "sums": ours}
    if "_id" in rows.schema.names:
        found["ids"] = pc.count_distinct(rows["_id"]).as_py()
    return found


def read(database, warehouse, *flags):
    lake = catalog(database, warehouse)
    found = {}
    for name in lake.list_tables(NAMESPACE) if lake.namespace_exists(NAMESPACE) else []:
        table = lake.load_table(name)
        if table.current_snapshot() is None:
            continue
        found[name[-1]] = facts(table.scan().to_arrow())
        found[name[-1]]["offsets"] = json.loads(table.properties.get("streamgauge.offsets", "{}"))
        if "--snapshots" in flags:
            # Every committed snapshot must be readable, and hold what its summaries say so far.
            counts = []
            for snapshot in table.snapshots():
                rows = table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows
                assert rows == int(snapshot.summary["total-records"]), (name, snapshot)
                counts.append(rows)
            found[name[-1]]["snapshots"] = counts
        if "--places" in flags:
            columns = table.scan(selected_fields=("_topic_partition", "_topic", "_offset", "_part")).to_arrow()
            found[name[-1]]["at"] = sorted(
                [row["_topic"], row["_topic_partition"], row["_offset"], row["_part"]] for row in columns.to_pylist()
            )
    json.dump(found, sys.stdout)


def sql(database, warehouse, name, query):
    """What DuckDB says of the rows that PyIceberg reads; `name` is the table's name in the query."""
    path = (NAMESPACE, name) if "." not in name else tuple(name.split("."))
    db = duckdb.connect()
    db.register(path[-1], catalog(database, warehouse).load_table(path).scan().to_arrow())
    found = db.sql(query)
    json.dump([dict(zip(found.columns, row)) for row in found.fetchall()], sys.stdout, default=str)


def compact(database, warehouse, name):
    table = catalog(database, warehouse).load_table((NAMESPACE, name))
    rows = table.scan().to_arrow()
    table.overwrite(rows)


def expire(database, warehouse, name):
    table = catalog(database, warehouse).load_table((NAMESPACE, name))
    current = table.current_snapshot().snapshot_id
    old = [s.snapshot_id for s in table.snapshots() if s.snapshot_id != current]
    table.maintenance.expire_snapshots().by_ids(old).commit()


def rollback(database, warehouse, name):
    table = catalog(database, warehouse).load_table((NAMESPACE, name))
    table.manage_snapshots().rollback_to_snapshot(table.current_snapshot().parent_snapshot_id).commit()


if __name__ == "__main__":
    {"read": read, "sql": sql, "compact": compact, "expire": expire, "rollback": rollback}[sys.argv[1]](*sys.argv[2:])
