"""Lists the records of RocksDB's WALs and MANIFESTs: an independent decoder, against which ours is tested.

Usage: list.py DIRECTORY > DIRECTORY/expected.txt
Compressed WALs need the program zstd. Small on purpose: it trusts its input.
"""
import os, re, struct, subprocess, sys

BLOCK = 32768
TABLE = []
for i in range(256):
    c = i
    for _ in range(8):
        c = (c >> 1) ^ 0x82F63B78 if c & 1 else c >> 1
    TABLE.append(c)


def crc32c(data):
    c = 0xFFFFFFFF
    for x in data:
        c = TABLE[(c ^ x) & 255] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


def unmask(m):
    r = (m - 0xA282EAD8) & 0xFFFFFFFF
    return ((r >> 17) | (r << 15)) & 0xFFFFFFFF


def physical(data, number):
    """(start, end, type, payload) of each fragment up to the first thing that is none."""
    at = 0
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        crc, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0 and length == 0:
            if any(data[at : at + left]) or at + left >= len(data):
                return
            at += left
            continue
        header = 11 if kind in (5, 6, 7, 8, 11, 131) else 7
        end = at + header + length
        if end > len(data) or header + length > left:
            return
        if header == 11 and struct.unpack_from("<I", data, at + 7)[0] != number & 0xFFFFFFFF:
            return
        if crc32c(data[at + 6 : end]) != unmask(crc):
            return
        yield at, end, kind, data[at + header : end]
        at = end


def logical(data, number):
    """(start, end, 'record' or type, payload)."""
    start, parts, compressed = None, [], False
    for at, end, kind, payload in physical(data, number):
        if kind == 9:
            compressed = True
        if kind in (1, 2, 5, 6):
            start, parts = at, []
        if kind in (1, 2, 3, 4, 5, 6, 7, 8):
            parts.append(payload)
            if kind in (1, 4, 5, 8):
                whole = b"".join(parts)
                if compressed and whole:
                    whole = subprocess.run(["zstd", "-dc"], input=whole, stdout=subprocess.PIPE, check=True).stdout
                yield start, end, "record", whole
        else:
            yield at, end, kind, payload


def varint(b, at):
    value = shift = 0
    while True:
        byte = b[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def prefixed(b, at):
    n, at = varint(b, at)
    return b[at : at + n], at + n


def operations(b):
    at = 12
    while at < len(b):
        tag, cf = b[at], 0
        at += 1
        if tag in (4, 5, 6, 8, 0x0E, 0x10, 0x17, 0x19):
            cf, at = varint(b, at)
        two = tag in (1, 2, 5, 6, 0x0E, 0x0F, 0x10, 0x11, 0x15, 0x16, 0x17, 0x18, 0x19)
        one = tag in (0, 3, 4, 7, 8, 0x0A, 0x0B, 0x0C)
        assert two or one or tag in (9, 0x0D, 0x12, 0x13), tag
        sizes = []
        for _ in range(2 if two else 1 if one else 0):
            field, at = prefixed(b, at)
            sizes.append(str(len(field)))
        yield "%02x:%d:%s" % (tag, cf, "+".join(sizes))


def edit(b):
    at, words, cf = 0, [], 0
    simple = {2: "log", 3: "next", 4: "seq", 9: "prev", 10: "min-log", 203: "max-cf", 300: "group"}
    text = {1: "comparator", 201: "add", 8193: "db-id"}
    while at < len(b):
        tag, at = varint(b, at)
        if tag in simple:
            n, at = varint(b, at)
            words.append("%s=%d" % (simple[tag], n))
        elif tag in text:
            s, at = prefixed(b, at)
            words.append("%s=%s" % (text[tag], s.decode()))
        elif tag == 5:
            _, at = varint(b, at)
            _, at = prefixed(b, at)
        elif tag == 6:
            level, at = varint(b, at)
            number, at = varint(b, at)
            words.append("delete=%d:%d" % (level, number))
        elif tag == 103:
            fields = []
            for _ in range(3):
                n, at = varint(b, at)
                fields.append(n)
            for _ in range(2):
                _, at = prefixed(b, at)
            for _ in range(2):
                n, at = varint(b, at)
                fields.append(n)
            custom = {}
            while True:
                t, at = varint(b, at)
                if t == 1:
                    break
                custom[t], at = prefixed(b, at)
            uid = custom.get(12)
            fields.append("%016x%016x" % struct.unpack("<QQ", uid) if uid else "-")
            fields.append(varint(custom[13], 0)[0] if 13 in custom else "-")
            fields.append(varint(custom[4], 0)[0] if 4 in custom else "-")
            words.append("new=" + ":".join(str(f) for f in fields))
            if 3 in custom:
                words.append("min-log-hack=%d" % struct.unpack("<Q", custom[3]))
        elif tag == 200:
            cf, at = varint(b, at)
        elif tag == 202:
            words.append("drop")
        elif tag in (400, 401):
            fields = []
            for _ in range(3):
                n, at = varint(b, at)
                fields.append(str(n))
            if tag == 400:
                for _ in range(2):
                    _, at = prefixed(b, at)
            while True:
                t, at = varint(b, at)
                if t == 0:
                    break
                _, at = prefixed(b, at)
            words.append(("blob=" if tag == 400 else "garbage=") + ":".join(fields))
        elif tag == 8199:
            s, at = prefixed(b, at)
            number, p = varint(s, 0)
            t, p = varint(s, p)
            words.append("wal=%d:%s" % (number, varint(s, p)[0] if t == 2 else "-"))
        elif tag == 8200:
            s, at = prefixed(b, at)
            words.append("wals-below=%d" % varint(s, 0)[0])
        elif tag > 8192:
            _, at = prefixed(b, at)
        else:
            raise ValueError("tag %d" % tag)
    return "cf=%d %s" % (cf, " ".join(sorted(words)))


def main(directory):
    for name in sorted(os.listdir(directory)):
        if name.endswith(".log"):
            number = int(name[:-4])
        elif re.fullmatch(r"MANIFEST-\d+", name):
            number = 0
        else:
            continue
        print("==", name)
        data = open(os.path.join(directory, name), "rb").read()
        last = 0
        for start, end, kind, payload in logical(data, number):
            last = end
            if kind != "record":
                print("metadata", start, end, "type=%d" % kind, payload.hex())
            elif number:
                sequence, count = struct.unpack_from("<QI", payload)
                print("batch", start, end, "seq=%d count=%d bytes=%d" % (sequence, count, len(payload)), *operations(payload))
            else:
                print("edit", start, end, edit(payload))
        print("end", last, "void=%d" % (len(data) - last))


main(sys.argv[1])
