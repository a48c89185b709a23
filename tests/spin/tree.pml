/* The protocol of src/tree, on one block of two words with two frames each: refill and flush,
 * announce and retire, split and merge, and "out of memory" by evidence of the journals.
 * Sequentially consistent: what weak orderings can do is the loom models' matter. Here all
 * interleavings of CPUS are explored, without a bound on preemptions.
 *
 * Each CPU takes a word's frames and gives them back, at once or one by one, ROUNDS times; or it
 * says "out of memory", which is asserted to have been true at some instant during its look.
 *
 * With HALT, CPU 0 stops for good at any step. The others may then be told "out of memory" after
 * LOOKS looks, as the documentation says, but nobody gets a frame twice and all come to their end.
 *
 * Planted bugs: NO_RECHECK, NO_ANNOUNCE, NO_UNDO, NO_EVIDENCE, NO_JOURNAL,
 * LOAD_STORE, ONE_LOOK, LOCK.
 */
#ifndef CPUS
#define CPUS 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef LOOKS
#define LOOKS 2
#endif
#define FULL 3

byte leaf[2];
/* Whether the block is free as a whole: truth. */
bit block;
/* Whether the leaf holds something: a hint. */
bit hint;
byte begun[CPUS];
byte done[CPUS];

/* What the model itself keeps account of: each frame's owner, a CPU + 1; how many frames there are
 * and how many have owners; and whether all had one at some instant of a CPU's look. */
byte owner[4];
byte managed;
byte held;
bit was_out[CPUS];
byte ended;
bit stop;
#ifdef LOCK
bit lock;
#endif

#ifdef NO_JOURNAL
#define begin(me) skip
#define end(me)   skip
#else
#define begin(me) begun[me]++
#define end(me)   done[me]++
#endif

inline own_one(me, frame) {
    assert(owner[frame] == 0);
    owner[frame] = me + 1;
    held++
}

/* In one step with the read-modify-write that takes the frames. */
inline own(me, word, bits) {
    if
    :: bits & 1 -> own_one(me, 2 * word)
    :: else
    fi;
    if
    :: bits & 2 -> own_one(me, 2 * word + 1)
    :: else
    fi;
    note_out()
}

inline note_out() {
    if
    :: held == managed ->
        was_out[0] = 1;
        was_out[1] = 1;
        if
        :: CPUS > 2 -> was_out[CPUS - 1] = 1
        :: else
        fi
    :: else
    fi
}

/* In one step with the read-modify-write that gives them. */
inline disown(me, word, bits) {
    if
    :: bits & 1 -> assert(owner[2 * word] == me + 1); owner[2 * word] = 0; held--
    :: else
    fi;
    if
    :: bits & 2 -> assert(owner[2 * word + 1] == me + 1); owner[2 * word + 1] = 0; held--
    :: else
    fi
}

inline announce() {
#ifndef NO_ANNOUNCE
    hint = 1
#else
    skip
#endif
}

inline retire(me) {
    if
    :: hint ->
        begin(me);
        hint = 0;
#ifndef NO_RECHECK
        /* The second look, word by word. */
        if
        :: leaf[0] != 0 -> announce()
        :: else ->
            if
            :: leaf[1] != 0 -> announce()
            :: else
            fi
        fi;
#endif
        end(me)
    :: else
    fi
}

/* After a word became full, inside of a step. */
inline merge(me) {
    do
    :: leaf[0] == FULL ->
        if
        :: leaf[1] == FULL
        :: else -> break
        fi;
        /* Claims word by word. */
        atomic { if :: leaf[0] == FULL -> leaf[0] = 0; won = 1 :: else -> won = 0 fi };
        if
        :: won ->
            atomic { if :: leaf[1] == FULL -> leaf[1] = 0; won = 1 :: else -> won = 0 fi };
            if
            :: won ->
                block = 1;
                retire(me);
                break
            :: else ->
#ifndef NO_UNDO
                leaf[0] = leaf[0] | FULL;
#endif
                announce()
            fi
        :: else
        fi
    :: else -> break
    od
}

inline flush(me, word, bits) {
    begin(me);
    atomic {
        old = leaf[word];
        assert((old & (bits)) == 0);
        leaf[word] = old | bits;
        disown(me, word, bits)
    };
    if
    :: old == 0 -> announce()
    :: else
    fi;
    if
    :: (old | bits) == FULL -> merge(me)
    :: else
    fi;
    end(me)
}

/* Takes all that word `at` holds. */
inline take_all(me, at) {
#ifdef LOAD_STORE
    bits = leaf[at];
    atomic { leaf[at] = 0; own(me, at, bits) };
#else
    atomic { bits = leaf[at]; leaf[at] = 0; own(me, at, bits) };
#endif
    word = at
}

/* One search: `bits` of `word`, or 0. */
inline search(me) {
    bits = 0;
    if
    :: block ->
        begin(me);
        /* Keeps word 0. */
        atomic {
            if
            :: block -> block = 0; word = 0; bits = FULL; own(me, 0, FULL)
            :: else
            fi
        };
        if
        :: bits != 0 -> leaf[1] = FULL; announce()
        :: else
        fi;
        end(me)
    :: else
    fi;
    if
    :: bits == 0 && hint ->
        take_all(me, 0);
        if
        :: bits == 0 -> take_all(me, 1)
        :: else
        fi;
        if
        :: bits == 0 -> retire(me)
        :: else
        fi
    :: else
    fi
}

/* Whether no step is under way, and how many began so far. */
inline standstill(sum) {
    sum = 0;
    still = 1;
    at = 0;
    do
    :: at < CPUS ->
        old = done[at];
        if
        :: begun[at] == old -> sum = sum + old
        :: else -> still = 0
        fi;
        at++
    :: else -> break
    od
}

/* Looks until it finds frames, or until there were none. */
inline alloc(me) {
    looks = 0;
    atomic { was_out[me] = 0; note_out() };
    do
    :: true ->
        standstill(before);
        was_still = still;
        search(me);
        if
        :: bits != 0 -> break
        :: else
        fi;
#ifdef ONE_LOOK
        assert(was_out[me]);
        break;
#endif
#ifdef NO_EVIDENCE
        was_still = 1;
        before = 0;
        after = 0;
        still = 1;
#else
        standstill(after);
#endif
        if
        :: was_still && still && before == after -> assert(was_out[me]); break
        :: else
        fi;
#ifdef HALT
        /* A bounded number of looks, after which what stopped CPUs are moving can be missed. */
        looks++;
        if
        :: looks == LOOKS -> break
        :: else
        fi
#endif
    od
}

inline work(me) {
    do
    :: round < ROUNDS ->
        round++;
#ifdef LOCK
        atomic { lock == 0 -> lock = 1 };
#endif
        alloc(me);
#ifdef LOCK
        lock = 0;
#endif
        if
        :: bits == FULL -> flush(me, word, 1); flush(me, word, 2)
        :: bits != 0 -> flush(me, word, bits)
        :: bits == 0
        fi
    :: else -> break
    od;
    ended++
}

proctype cpu(byte me) {
    byte word, bits, old, round, at, before, after, looks;
    bit won, still, was_still;
#ifdef HALT
    { work(me) } unless { me == 0 && stop }
#else
    work(me)
#endif
}

/* At rest: nothing lost, nothing unmerged, no hint missing. */
inline check() {
    assert(held == 0);
    if
    :: managed == 4 -> assert(block && leaf[0] == 0 && leaf[1] == 0)
    :: managed == 2 -> assert(leaf[0] == 1 && leaf[1] == 1 && hint && !block)
    :: managed == 1 -> assert(leaf[0] == 1 && leaf[1] == 0 && hint && !block)
    fi
}

init {
    atomic {
        if
        :: managed = 4; block = 1
        :: managed = 2; leaf[0] = 1; leaf[1] = 1; hint = 1
        :: managed = 1; leaf[0] = 1; hint = 1
        fi;
        run cpu(0);
        run cpu(1);
        if
        :: CPUS > 2 -> run cpu(2)
        :: else
        fi
    };
#ifdef HALT
    stop = 1;
    /* Whoever has not stopped comes to an end. */
    ended >= CPUS - 1
#else
    ended == CPUS;
    check()
#endif
}
