"""A database written from Python, with a model of what it must contain.

    rocksdict_database.py write DIR SEED   write until stdin ends; one JSON line before and one after each commit
    rocksdict_database.py dump DIR         open DIR as its owner would and print all of it

The writer prints {"intent": [operation, ...]} before a commit and {"sequence": N} after it: whoever kills it knows
everything that was committed, and the one commit that may or may not have been. An operation is
["put", FAMILY, KEY, VALUE], ["delete", FAMILY, KEY] or ["delete_range", FAMILY, FROM, TO] (TO excluded), or alone in its
commit ["create_family", FAMILY]; keys and values are hexadecimal.
"""

import json
import random
import select
import sys
import time

from rocksdict import Options, Rdict, WriteBatch

FAMILIES = ["accounts", "log"]
LATE_FAMILY = "late"
LATE_AT = 40  # the commit before which a column family is created


def options():
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(True)
    chosen.create_missing_column_families(True)
    # Small, so that flushes, compactions and new WALs happen within a short run.
    chosen.set_write_buffer_size(64 * 1024)
    chosen.set_level_zero_file_num_compaction_trigger(2)
    return chosen


def key(rng):
    return b"key-%04d" % rng.randrange(400)


def operations(rng, families):
    """One commit: a few operations over all families, each kind that rocksdict offers."""
    ops = []
    for _ in range(rng.randrange(1, 8)):
        family = rng.choice(families)
        kind = rng.random()
        if kind < 0.75:
            value = rng.randbytes(rng.randrange(0, 300))
            ops.append(["put", family, key(rng).hex(), value.hex()])
        elif kind < 0.95:
            ops.append(["delete", family, key(rng).hex()])
        else:
            first = rng.randrange(400)
            ops.append(
                ["delete_range", family, (b"key-%04d" % first).hex(), (b"key-%04d" % (first + rng.randrange(1, 20))).hex()]
            )
    return ops


def say(line):
    print(json.dumps(line), flush=True)


def commit(db, handles, ops):
    batch = WriteBatch(raw_mode=True)
    for op in ops:
        handle = handles[op[1]]
        arguments = [bytes.fromhex(text) for text in op[2:]]
        if op[0] == "put":
            batch.put(arguments[0], arguments[1], handle)
        elif op[0] == "delete":
            batch.delete(arguments[0], handle)
        else:
            batch.delete_range(arguments[0], arguments[1], handle)
    db.write(batch)


def write(path, seed):
    rng = random.Random(seed)
    db = Rdict(path, options(), {name: options() for name in FAMILIES})
    families = ["default"] + FAMILIES
    handles = {name: db.get_column_family_handle(name) for name in families}
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        if number == LATE_AT:
            say({"intent": [["create_family", LATE_FAMILY]]})
            db.create_column_family(LATE_FAMILY, options())
            families.append(LATE_FAMILY)
            handles[LATE_FAMILY] = db.get_column_family_handle(LATE_FAMILY)
            say({"sequence": db.latest_sequence_number()})
        ops = operations(rng, families)
        say({"intent": ops})
        commit(db, handles, ops)
        say({"sequence": db.latest_sequence_number()})
        number += 1
        time.sleep(0.002)
    db.close()


def dump(path):
    names = Rdict.list_cf(path)
    db = Rdict(path, options(), {name: options() for name in names if name != "default"})
    families = {}
    for name in names:
        family = db.get_column_family(name)
        families[name] = {key.hex(): value.hex() for key, value in family.items()}
    print(json.dumps({"sequence": db.latest_sequence_number(), "families": families}))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]))
    else:
        dump(sys.argv[2])
