"""Writes a small database with the RocksDB inside a rocksdict release, and exits without closing it.

Usage: PYTHONPATH=<rocksdict> python_db.py DIRECTORY [recycle | reopen]
"""
import os, sys
from rocksdict import Options, Rdict, WriteBatch

directory = sys.argv[1]
recycle = "recycle" in sys.argv[2:]


def options():
    o = Options(raw_mode=True)
    o.create_if_missing(True)
    if recycle:
        o.set_recycle_log_file_num(2)
    else:
        o.set_wal_ttl_seconds(3600)  # keeps old WALs, in archive/
    return o


if "reopen" in sys.argv[2:]:
    families = {name: Options(raw_mode=True) for name in Rdict.list_cf(directory)}
    db = Rdict(directory, options(), column_families=families)
    db[b"after"] = b"the reopen"
    os._exit(0)

db = Rdict(directory, options())
for i in range(5):
    db[b"key %d" % i] = b"value %d" % i
users = db.create_column_family("users", Options(raw_mode=True))
gone = db.create_column_family("gone", Options(raw_mode=True))
batch = WriteBatch(raw_mode=True)
batch.put(b"batched", b"1")
batch.delete(b"key 1")
handle = db.get_column_family_handle("users")
batch.put(b"user", b"2", handle)
batch.delete_range(b"a", b"b", handle)
db.write(batch)
gone[b"x"] = b"y"
users[b"large"] = bytes(i * 7919 % 251 for i in range(70_000))  # three blocks
db.flush()
users.flush()
db.drop_column_family("gone")
for i in range(40):
    db[b"later %d" % i] = b"v" * i
if recycle:
    # Long WALs become obsolete and are overwritten by short ones.
    for i in range(8):
        for key in range(12 - i):
            users[b"u%d" % key] = b"%d" % i * 300
        db[b"d"] = b"%d" % i
        db.flush()
        users.flush()
db[b"end"] = b"of the last WAL"
os._exit(0)
