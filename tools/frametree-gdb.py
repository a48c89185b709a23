"""Shows a frametree pool of a stopped kernel in gdb.

    (gdb) source tools/frametree-gdb.py
    (gdb) frametree tree kernel::POOL              what is free, at which level, in which cache
    (gdb) frametree find kernel::POOL $rdi         whose the frame at a physical address is
    (gdb) frametree owners kernel::POOL            who has how many frames of a hardened pool

The pool is an expression that names the `static`, the address any expression with a number. The
kernel needs debug information for types (`debug = 2` in its profile), and a stop where its own
page tables are in use. Nothing of the kernel is called or changed: the script reads the words of
the tree as src/root.rs describes them, so it also works in the middle of any operation, and then
shows what is so at this instant: a frame on its way between two levels looks held. The ledger of a
hardened pool is src/hardened/ledger.rs'.
"""

import array
import collections
import struct

import gdb

FRAME = 4096
WORD, NODE = 64, 8  # bits of a word, words of a node
BLOCK = WORD * NODE  # frames of a block, and blocks of a giant
GIANT = BLOCK * BLOCK  # frames of a giant
ALL = (1 << 64) - 1


def memory(address, words):
    """So many words from an address on."""
    data = gdb.selected_inferior().read_memory(address, words * 8)
    return struct.unpack(f"<{words}Q", bytes(data))


def words(value):
    """The words that a value of the crate is made of, whatever wraps them."""
    return memory(int(value.address), value.type.sizeof // 8)


def word(value):
    return words(value)[0]


def pointer_in(kind):
    """The type of the pointer that a type is wrapped around."""
    kind = kind.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR:
        return kind
    if kind.code != gdb.TYPE_CODE_STRUCT:
        return None
    return next(filter(None, (pointer_in(field.type) for field in kind.fields())), None)


def at(address, pointer):
    return gdb.Value(address).cast(pointer).dereference()


def follow(link):
    """What a link, a way or a reference leads to, or None."""
    address = word(link)
    return at(address, pointer_in(link.type)) if address else None


def part(value, type_name):
    """The part of a value that is of this type, however deep."""
    kind = value.type.strip_typedefs()
    if (kind.name or "").split("<")[0] == type_name:
        return value
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        for field in kind.fields():
            if hasattr(field, "bitpos"):
                found = part(value[field], type_name)
                if found is not None:
                    return found
    return None


def element(array, index):
    """An element of an array; gdb's own `[]` is not for Rust's."""
    kind = array.type.target()
    return at(int(array.address) + index * kind.sizeof, kind.pointer())


def slice_of(value):
    """The elements of a slice."""
    start, length = words(value)[:2]
    pointer = pointer_in(value.type)
    size = pointer.target().sizeof
    return [at(start + index * size, pointer) for index in range(length)]


def bit(node, index):
    return node[index // WORD] >> index % WORD & 1


def ones(node):
    return sum(word.bit_count() for word in node)


def bytes_of(frames):
    for unit, size in (("GiB", GIANT), ("MiB", 256)):
        if frames >= size:
            return f"{frames / size:.1f} {unit}"
    return f"{frames * 4} KiB"


class Giant:
    """One GiB of the tree."""

    def __init__(self, cluster, giant):
        self.giant, self.number = giant, int(giant["number"])
        mask = 1 << self.number % WORD
        self.is_free = bool(word(cluster["free"]) & mask)
        self.is_ready = bool(word(cluster["ready"]) & mask)
        nodes = follow(giant["nodes"])
        self.blocks, self.ready = words(nodes["blocks"]), words(nodes["ready"])

    def leaf(self, block):
        """The frames of a block that are free one by one."""
        section = follow(element(self.giant["sections"], block // WORD))
        if section is None or not bit(self.ready, block):
            return (0,) * NODE
        return memory(int(element(section["leaves"], block % WORD).address), NODE)

    def is_gone(self, frame):
        block = frame // BLOCK % BLOCK
        gone = follow(element(self.giant["gone"], block // WORD))
        return gone is not None and bool(
            bit(words(element(gone["nodes"], block % WORD)), frame % BLOCK)
        )

    def count(self):
        """Free blocks, blocks of which some frames are free, and frames in these."""
        if self.is_free or not self.is_ready:
            return (BLOCK if self.is_free else 0), 0, 0
        crumbs = [
            ones(self.leaf(block)) for block in range(BLOCK) if not bit(self.blocks, block)
        ]
        return ones(self.blocks), sum(map(bool, crumbs)), sum(crumbs)


class Ledger:
    """Who has which frames of one range, in a hardened pool."""

    OWNER, HELD, ASIDE = 0xFFFF, 1 << 16, 1 << 19

    def __init__(self, ledger):
        numbers = ledger["range"]
        self.start, self.end = word(numbers["start"]), word(numbers["end"])
        self.first = words(ledger["entries"])[0] + int(ledger["first"]) * 4

    def entries(self, start, end):
        """Those of some frames of the range."""
        place = self.first + (start - self.start) * 4
        data = gdb.selected_inferior().read_memory(place, (end - start) * 4)
        return array.array("I", bytes(data))

    @classmethod
    def owner(cls, entry):
        number = entry & cls.OWNER
        return f"owner {number}" if number else "unnamed"

    @classmethod
    def whose(cls, entry, place):
        """A frame with this entry, which the tree and the caches know to be at `place`."""
        owner = cls.owner(entry)
        had = f"; {owner} had it last" if entry & cls.OWNER else ""
        if entry & cls.ASIDE:
            return "set aside: it was written to while it was free" + had
        if not entry & cls.HELD:
            return (f"{place}, in nobody's name" if place == "held" else place) + had
        by = f"held, {owner}" if owner == "unnamed" else f"held by {owner}"
        return by if place == "held" else f"{place}, and yet {by}"


class Pool:
    def __init__(self, expression):
        pool = gdb.parse_and_eval(expression)
        shared = part(pool, "frametree::pool::shared::Shared")
        if shared is None:
            raise gdb.GdbError(
                f"{expression} is no frametree::FramePool, or its types are not in the debug "
                "information (`debug = 2`)"
            )
        tree = shared["tree"]
        self.top, self.ranges = tree["directory"]["top"], tree["directory"]["ranges"]
        if not word(self.top["table"]):
            raise gdb.GdbError(f"{expression} is not initialised yet")
        self.isolations = tree["directory"]["isolations"]
        self.slots = slice_of(shared["slots"])
        self.managed = word(tree["managed"])
        self.ledgers = list(self.ledgers_of(shared))

    @staticmethod
    def ledgers_of(shared):
        # A build without the feature does not even have the field.
        has_field = any(field.name == "hardened" for field in shared.type.fields())
        hardened = follow(shared["hardened"]) if has_field else None
        if hardened is None:
            return
        ledgers = hardened["ledgers"]
        yield from map(Ledger, slice_of(ledgers["initial"]))
        later = follow(ledgers["latest"])
        while later is not None:
            yield Ledger(later)
            later = follow(later["next"])

    def giants(self):
        cluster = follow(self.top["first"])
        while cluster is not None:
            for link in range(WORD):
                giant = follow(element(cluster["giants"], link))
                if giant is not None:
                    yield Giant(cluster, giant)
            cluster = follow(cluster["next"])

    def managed_ranges(self):
        for numbers in slice_of(self.ranges["initial"]):
            yield word(numbers["start"]), word(numbers["end"])
        record = follow(self.ranges["latest"])
        while record is not None:
            yield word(record["start"]), word(record["end"])
            record = follow(record["next"])

    def is_isolated(self, frame):
        places = (element(self.isolations["places"], index) for index in range(16))
        return any(word(place["start"]) <= frame < word(place["end"]) for place in places)

    def sides(self):
        """What is cached: the CPU, which side, the first frame of its group, a bit for each."""
        for cpu, slot in enumerate(self.slots):
            for name in ("alloc_side", "free_side"):
                side = slot[name]
                free = word(side["free"])
                if free:
                    yield cpu, name.replace("_", " "), word(side["group"]) * WORD, free
            behind = word(slot["requests"]["parked"]["word"]) >> 1
            for group in range((behind - 1) * BLOCK // WORD, behind * BLOCK // WORD):
                if behind:
                    yield cpu, "block", group * WORD, ALL

    def find(self, frame):
        """Whose a frame is, in words."""
        managed = any(start <= frame < end for start, end in self.managed_ranges())
        giant = next((g for g in self.giants() if g.number == frame // GIANT), None)
        if not managed or giant is None:
            return "not managed"
        if giant.is_gone(frame):
            return "not managed any more: it was isolated, and came free"
        cached = next(
            (
                f"free, in the cache of CPU {cpu} ({side})"
                for cpu, side, first, free in self.sides()
                if first <= frame < first + WORD and free >> frame % WORD & 1
            ),
            None,
        )
        isolated = " (isolated)" if self.is_isolated(frame) else ""
        place = self.in_tree(giant, frame) or cached or "held"
        ledger = next((it for it in self.ledgers if it.start <= frame < it.end), None)
        if ledger is not None:
            place = Ledger.whose(ledger.entries(frame, frame + 1)[0], place)
        return place + isolated

    def owners(self):
        """Who has how many frames."""
        if not self.ledgers:
            print("not hardened: this pool has no ledger")
            return
        count = collections.Counter()
        for ledger in self.ledgers:
            count.update(ledger.entries(ledger.start, ledger.end))
        held = collections.Counter()
        for entry, frames in count.items():
            if entry & Ledger.HELD:
                held[entry & Ledger.OWNER] += frames
        for number, frames in sorted(held.items()):
            print(f"{Ledger.owner(number)}  {frames}")
        print(f"set aside  {sum(n for entry, n in count.items() if entry & Ledger.ASIDE)}")

    @staticmethod
    def in_tree(giant, frame):
        if giant.is_free:
            return f"free, in the free GiB at {frame // GIANT * GIANT * FRAME:#x}"
        block = frame // BLOCK % BLOCK
        if not giant.is_ready:
            return None
        if bit(giant.blocks, block):
            return f"free, in the free 2 MiB at {frame // BLOCK * BLOCK * FRAME:#x}"
        leaf = giant.leaf(block)
        if bit(leaf, frame % BLOCK):
            return f"free, one of {ones(leaf)} in its 2 MiB"
        return None

    def show(self):
        giants = [(giant, giant.count()) for giant in self.giants()]
        free = sum(blocks * BLOCK + frames for _, (blocks, _, frames) in giants)
        sides = list(self.sides())
        cached = sum(bits.bit_count() for *_, bits in sides)
        print(f"managed  {self.managed} frames, {bytes_of(self.managed)}")
        for start, end in sorted(self.managed_ranges()):
            print(f"    {start * FRAME:#x}..{end * FRAME:#x}")
        print(f"free     {free} frames in the tree, {cached} in caches")
        for giant, (blocks, partly, frames) in giants:
            line = f"    GiB {giant.number} at {giant.number * GIANT * FRAME:#x}: "
            if giant.is_free:
                print(line + "free as a whole")
            else:
                print(line + f"{blocks} free blocks of 2 MiB, {frames} frames in {partly} others")
        for cpu, side, first, bits in sides:
            print(f"    CPU {cpu}, {side}: {bits.bit_count()} of 64 at {first * FRAME:#x}")


class Frametree(gdb.Command):
    """A frametree pool: `frametree tree POOL`, `owners POOL`, or `find POOL ADDRESS`."""

    def __init__(self):
        super().__init__("frametree", gdb.COMMAND_DATA, gdb.COMPLETE_SYMBOL)

    def invoke(self, argument, from_tty):
        match argument.split(maxsplit=2):
            case ["tree", pool]:
                Pool(pool).show()
            case ["owners", pool]:
                Pool(pool).owners()
            case ["find", pool, expression]:
                address = int(gdb.parse_and_eval(expression)) & ALL
                found = Pool(pool).find(address // FRAME)
                print(f"{address:#x}: {found}")
            case _:
                raise gdb.GdbError(self.__doc__)


Frametree()
