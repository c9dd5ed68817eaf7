"""Check this export with Python 3.8 alone: hashes, chain, versions; add up its wallets. Signatures: see HOWTO.txt."""
import base64, collections, hashlib, itertools, json, pathlib, sys

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()

def root_of(start, end, first, last, leaves, known, depth=0):  # RFC 6962, 2.1; `leaves` are of positions first to last
    node = known(start, end - start, depth) if end < first or start >= last else None
    if node or end - start == 1:
        return node or next(leaves)
    half = start + (1 << (end - start - 1).bit_length() - 1)
    return sha(b"\1", *(root_of(*part, first, last, leaves, known, depth + 1) for part in ((start, half), (half, end))))

def read(log, name, level, index):  # a file of C2SP tlog-tiles
    *above, number = (each.zfill(3) for each in f"{index:,}".split(","))
    width = min(256, (log["size"] >> 8 * level) - 256 * index)
    path = "".join(f"x{each}/" for each in above) + number + f".p/{width}" * (width < 256)
    return (log["folder"] / "tile" / name / path).read_bytes()

def in_tile(log, start, span, _):  # the hash of leaves that are not here, where a tile holds it
    level, index = span.bit_length() // 8, start // span
    return read(log, str(level), level, index // 256)[index % 256 * 32 :][:32] if span == 256**level else None

def entries(log):  # position, entry, proof
    for item in map(json.loads, (log["folder"] / "entries.ndjson").open()) if log["kind"] == "selection" else []:
        proof = [bytes.fromhex(each) for each in item["proof"]] if "proof" in item else None
        yield item["position"], base64.b64decode(item["entry"]), proof
    for index in range((log["first"] - 1) // 256, (log["last"] + 255) // 256) if log["kind"] != "selection" else []:
        data, position = read(log, "entries", 0, index), 256 * index
        while data:
            entry, data, position = data[2 : (end := 2 + int.from_bytes(data[:2], "big"))], data[end:], position + 1
            yield from [(position, entry, None)] if log["first"] <= position <= log["last"] else []

def check(log, totals):
    origin, size, root = (log["folder"] / "checkpoint").read_text().split("\n")[:3]
    first, last, size, root, leaves, versions = log["first"], log["last"], int(size), base64.b64decode(root), [], {}
    at, leaf, proved, tiled = 0, sha(b"countroom/log/v1\n", origin.encode()), True, log["kind"] != "selection"
    for position, entry, proof in entries(log):
        body, fits = json.loads(entry[48:]), entry[:32] == leaf if position == at + 1 else proved and position > at
        at, leaf, proved, stream = position, sha(b"\0", entry), tiled or proof is not None, body["stream"]
        fits &= proof is None or root == root_of(0, size, at, at, iter([leaf]), lambda *of: proof[-of[2]])
        if tiled or stream in (log.get("streams") or {}):
            begins = first == 1 and body.get("epoch", 1) == 1  # else another log may have begun the stream
            fits &= body["version"] == versions.get((stream, body.get("epoch")), 0 if begins else body["version"] - 1) + 1
        if not fits or at != int.from_bytes(entry[32:40], "big"):
            sys.exit(f"NOT INTACT: position {at} of {origin} breaks the chain, its stream, or its proof")
        versions[stream, body.get("epoch")] = body["version"]
        leaves.append(leaf)
        data = body["data"] if body["type"].startswith("wallet.") else {}
        for moved, (sign, account) in itertools.product(data.get("movements") or filter(None, [data.get("transfer")]), SIDES):
            totals[stream, moved[account], moved["money"]["currency"]] += sign * moved["money"]["amount"]
    if not proved or (tiled and root != root_of(0, size, first, last, iter(leaves), lambda *of: in_tile(log, *of))):
        sys.exit(f"NOT INTACT: the entries of {origin} do not lead to its checkpoint")

sys.excepthook = lambda kind, error, _: print(f"NOT INTACT, unreadable: {kind.__name__}: {error}", file=sys.stderr)
HERE, TOTALS, SIDES = pathlib.Path(__file__).parent, collections.Counter(), ((-1, "source"), (1, "target"))
for name, shown in json.loads((HERE / "MANIFEST.json").read_text())["logs"].items():
    check({**shown, "folder": HERE / name}, TOTALS)
for (stream, account, currency), amount in sorted(item for item in TOTALS.items() if ":" not in item[0][1]):
    print(f"{stream}  {account:<10}{amount:>15,} {currency}")
print("intact: hashes, chain and versions; whose signatures stand under the checkpoints was not looked at")
