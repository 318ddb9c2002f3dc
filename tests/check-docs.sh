#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fails where the documents say what the code does not: links, methods, exit codes, statuses, kinds, schemas, the lines of
# docs/errors.md, and the recorded bytes of docs/protocol.md, which are decoded. TAP on standard output.
set -u
cd "${1:-${abs_top_srcdir:-$(dirname "$0")/..}}" || exit 1

# Debian's protobuf module belongs to Debian's Python, which need not be the first in $PATH.
python=${PYTHON:-python3}
for candidate in "$python" /usr/bin/python3; do
        if "$candidate" -c 'import google.protobuf' 2>/dev/null; then
                python=$candidate
                break
        fi
done

exec "$python" - <<'EOF'
import glob
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

FOLDERS = ("common", "proto", "supervisor", "runner", "client")
DOCUMENTS = sorted(["README", *glob.glob("*.md"), *glob.glob("docs/*.md")])


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sources(*folders):
    paths = [path for folder in folders for path in glob.glob(folder + "/**/*.[ch]", recursive=True)]
    return {path: read(path) for path in sorted(paths) if not path.endswith((".pb-c.c", ".pb-c.h"))}


def rows(text, width):
    """The cells of all table rows of that many columns."""
    found = [[cell.strip() for cell in line[1:].rstrip("|").split("|")] for line in text.split("\n") if line.startswith("| ")]
    return [row for row in found if len(row) == width]


def compare(what, documented, real, where):
    faults = [f"{what} {name}: in {where}, not in the code" for name in sorted(documented - real, key=str)]
    return faults + [f"{what} {name}: in the code, not in {where}" for name in sorted(real - documented, key=str)]


def anchors(text):
    """Of the headings, as they are made from their words."""
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links():
    faults = []
    for path in DOCUMENTS:
        for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", read(path)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
            if not os.path.exists(file):
                faults.append(f"{path}: {target}: no such file")
            elif anchor and anchor not in anchors(read(file)):
                faults.append(f"{path}: {target}: no such heading")
    return faults


METHOD = re.compile(r"\bbaton\.[A-Z]\w*/[A-Z]\w*")


def methods():
    real = set()
    for text in sources("proto", "supervisor", "runner", "client").values():
        names = {name for literal in re.findall(r'"((?:\\.|[^"\\])*)"', text) for name in METHOD.findall(literal)}
        service = re.search(r'#define SERVICE +"(baton\.\w+/)"', text)
        if service:
            names |= {service[1] + name for name in re.findall(r'\{ "(\w+)", &baton__', text)}
        real |= names
    documented = {name for path in DOCUMENTS for name in METHOD.findall(read(path))} - {"baton.Control/X"}
    return compare("method", documented, real, "a document")


def enum(path, prefix):
    """Names and numbers of enumerators that begin with the prefix and have no other before their number."""
    found, number = {}, 0
    for name, value in re.findall(r"^\s+" + prefix + r"(\w+)(?: = (\d+))?,", read(path), re.M):
        number = int(value) if value else number
        found[name] = number
        number += 1
    return found


def exit_codes():
    codes = enum("client/exit-code.h", "EXIT_CODE_")
    statuses = enum("proto/status.h", "STATUS_")
    plain = {str(code) for name, code in codes.items() if name not in ("STATUS", "SIGNAL")}
    real = plain | {str(codes["STATUS"] + code) for code in statuses.values() if code} | {f"{codes['SIGNAL']} + N"}
    section = read("docs/errors.md").partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    table = rows(section, 3)[1:]
    faults = compare("exit code", {row[0] for row in table if row[0] != "---"}, real, "docs/errors.md")
    for row in table:
        name = re.match(r"[A-Z_]{3,}", row[2])
        if name and name[0] in statuses and int(row[0]) != codes["STATUS"] + statuses[name[0]]:
            faults.append(f"exit code {row[0]}: {name[0]} is {codes['STATUS'] + statuses[name[0]]}")
    for row in rows(read("docs/errors.md"), 3) + rows(read("docs/errors.md"), 4):
        if re.fullmatch(r"1?\d\d?", row[1]) and row[1] not in real:
            faults.append(f"docs/errors.md: {row[0]}: there is no exit code {row[1]}")
    return faults


def numbers():
    text = read("docs/protocol.md")
    statuses = {(row[1], int(row[0])) for row in rows(text, 3) if row[0].isdigit()}
    kinds = {(name, int(number)) for name, number in re.findall(r"^\| ([A-Z]+) = (\d+) \|", text, re.M)}
    states = {(row[1], int(row[0])) for row in rows(text, 5) if row[0].isdigit()}
    listed = set(re.findall(r"^\s+([A-Z]+) = (\d+);", re.search(r"enum Kind \{.*?\n\}", read("proto/baton.proto"), re.S)[0], re.M))
    service = enum("proto/service.h", "SERVICE_STATE_")
    return (compare("status", statuses, set(enum("proto/status.h", "STATUS_").items()), "docs/protocol.md") +
            compare("kind", kinds, {(name, int(number)) for name, number in listed}, "docs/protocol.md") +
            compare("state", states, {pair for pair in service.items() if pair[1]}, "docs/protocol.md"))


def transitions():
    documented, state = set(), None
    for row in rows(read("docs/protocol.md"), 5):
        state = row[1] or state
        if re.fullmatch(r"[A-Z]\w+", row[2]) and re.fullmatch("[A-Z]+", row[3]):
            documented.add((state, row[2].upper(), row[3]))
    real, state = set(), None
    for line in read("proto/service.c").split("\n"):
        new = re.search(r"\[SERVICE_STATE_(\w+)\] = \{", line)
        state = new[1] if new else state
        entry = re.search(r"\[SERVICE_EVENT_(\w+)\] = T\((\w+),", line)
        if entry:
            real.add((state, entry[1], entry[2]))
    return compare("transition", documented, real, "docs/protocol.md")


def schemas():
    """What the documents show of a schema is what the schema says."""
    known = "\n".join(read(path) for path in glob.glob("proto/*.proto"))
    faults = []
    for path in DOCUMENTS:
        for block in re.findall(r"^```proto\n(.*?)^```", read(path), re.M | re.S):
            for piece in re.findall(r"^(?:message|enum) \w+ \{.*?^\}", block, re.M | re.S):
                if piece not in known:
                    faults.append(f"{path}: {piece.split(' {')[0]} is not what proto/ has")
    return faults


# What stands for something in docs/errors.md, and words that are the system's or come from tables of names. The code's
# texts are cut at the same places.
PLACEHOLDER = re.compile(
    r"\b[A-Z][A-Z_]+[A-Z]\b|\bN\b|\.\.\.|No such file or directory|Permission denied|Exec format error|\b10 s\b|[^\w\s/.-]")


def literals():
    """The pieces of all string literals: neighbours joined, cut at what printf fills in and at placeholders."""
    pieces = set()
    for text in sources(*FOLDERS).values():
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        text = re.sub(r'"\s*(?:PROGRAM|BOOTSTRAP_VARIABLE|PRI\w+)\s*"', "%s", text)
        text = re.sub(r'"\s*VALUES_TYPE\s*(?=")', "\"baton.Values\"", text).replace('" VALUES_TYPE', 'baton.Values"')
        for literal in re.findall(r'"(?:\\.|[^"\\\n])*"(?:\s*"(?:\\.|[^"\\\n])*")*', text):
            joined = re.sub(r'(?<!\\)"\s*"', "", literal)[1:-1].replace('\\"', '"')
            for piece in re.split(r"%[-+.*#0-9]*(?:ll|z|l|h)?[a-zA-Z]|\\n", joined):
                pieces |= {fragment.strip() for fragment in PLACEHOLDER.split(piece)}
    return pieces


def is_made_of(words, known, most):
    """Whether the words are at most so many pieces one after the other."""
    return not words or most > 0 and any(" ".join(words[:n]) in known and is_made_of(words[n:], known, most - 1)
                                         for n in range(len(words), 0, -1))


def lines():
    """Every quoted line of the tables is made of what the code prints."""
    known, faults = literals(), []
    for table in re.findall(r"^\| line \|.*\n(?:\|.*\n)+", read("docs/errors.md"), re.M):
        for cell in re.findall(r"^\| `([^`]+)`", table, re.M):
            faults += [f"docs/errors.md: no such text in the code: {fragment.strip()!r} of {cell!r}"
                       for fragment in PLACEHOLDER.split(cell) if not is_made_of(fragment.split(), known, 3)]
    return faults


def decode():
    """The blocks of recorded bytes: each is one lane message or one frame, and is what its lines with `=' say."""
    from google.protobuf import text_format
    from google.protobuf.symbol_database import Default
    with tempfile.TemporaryDirectory() as folder:
        names = ("baton", "control", "values")
        subprocess.run(["protoc", "--proto_path=proto", "--python_out=" + folder, *(name + ".proto" for name in names)],
                       check=True)
        sys.path.insert(0, folder)
        for name in names:
            __import__(name + "_pb2")
    symbols, faults, count = Default(), [], 0

    def equal(name, data, text):
        message = symbols.GetSymbol(name)
        return message.FromString(data) == text_format.Parse(text, message())

    for block in re.findall(r"^```hex\n(.*?)^```", read("docs/protocol.md"), re.M | re.S):
        title, *content = re.sub(r"\n=  +", " ", block).split("\n")
        data = bytes.fromhex("".join(re.match(r"(?:[0-9a-f]{2} )*(?:[0-9a-f]{2})?(?= {2}|$)|", line)[0] for line in content
                                     if not line.startswith("=")))
        said = dict(re.findall(r"^= ([\w.]+): (.*)$", "\n".join(content), re.M))
        count += 1
        if "lane" in said:
            ok = len(data) == 8 and struct.unpack("<Q", data)[0] == int(said["lane"])
        else:
            body, size = struct.unpack_from(">II", data)
            envelope, payload = data[8:8 + size], data[8 + size:]
            kind = symbols.GetSymbol("baton.Envelope").FromString(envelope)
            ok = body == len(data) - 4 and equal("baton.Envelope", envelope, said.pop("Envelope"))
            ok = ok and (set(said) == {kind.type} and equal(kind.type, payload, said[kind.type]) if payload
                         else not said)
        if not ok:
            faults.append(f"docs/protocol.md: {title}: {data[:20].hex(' ')} ... is not what is said of it")
    return faults + (["docs/protocol.md: too few recorded bytes"] if count < 20 else [])


def named_tests():
    """What a document says is tested is the name of a test: `test-x.py: name', `test-x: name'."""
    faults = []
    for path in DOCUMENTS:
        for file, name in re.findall(r"`(test-[\w-]+(?:\.py)?): (\w+)`", read(path)):
            place = f"tests/integration/{file}" if file.endswith(".py") else f"tests/{file}.c"
            if not os.path.exists(place):
                faults.append(f"{path}: there is no {place}")
            elif not re.search(rf"^def {name}\(|^static void test_{name}\(|^TEST_\w+\({name}\)", read(place), re.M):
                faults.append(f"{path}: {place} has no test {name}")
    return faults


def named_functions():
    """Who does a step of a takeover is a function that there is, in the file that is named with it."""
    text = read("docs/takeover.md")
    places = {}
    for path, code in sources("supervisor", "proto", "common").items():
        for name in re.findall(r"^\w[\w *]*?\b(\w+)\([^;]*$", code, re.M):
            places.setdefault(name, set()).add(path)
    named = set(re.findall(r"`(\w+)\(\)`", text))
    faults = [f"docs/takeover.md: there is no function {name}()" for name in sorted(named - set(places))]
    for cell in re.split(r"[|;\n]", text):
        for names, path in re.findall(r"((?:`\w+\(\)`(?:, )?)+) in `([\w/.-]+\.c)`", cell):
            faults += [f"docs/takeover.md: {name}() is not in {path}" for name in re.findall(r"(\w+)\(\)", names)[-1:]
                       if path not in places.get(name, ())]
    return faults + (["docs/takeover.md: names too few functions"] if len(named) < 30 else [])


TESTS = (("links lead somewhere", links), ("methods of baton's own", methods), ("exit codes", exit_codes),
         ("statuses, kinds and states", numbers), ("the table of a service's life", transitions),
         ("schemas as shown", schemas), ("tests that are named", named_tests), ("functions that are named", named_functions),
         ("lines that are printed", lines), ("recorded bytes decode", decode))
print(f"1..{len(TESTS)}")
failed = False
for number, (name, test) in enumerate(TESTS, 1):
    try:
        if test is decode and not shutil.which("protoc"):
            raise ImportError("protoc")
        found = test()
    except ImportError as error:
        print(f"ok {number} - {name} # SKIP {error}: python3-protobuf and protobuf-compiler are needed")
        continue
    failed |= bool(found)
    print(f"{'not ok' if found else 'ok'} {number} - {name}")
    for fault in found:
        print(f"#   {fault}")
sys.exit(failed)
EOF
