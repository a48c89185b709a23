//! The recorded cases of Go's page allocator, on the real library.
#![cfg(not(loom))]

#[path = "../examples/common/case.rs"]
mod case;
#[path = "../examples/replay/growth.rs"]
mod growth;
#[path = "../examples/replay/heap.rs"]
mod heap;
#[path = "../examples/replay/invariant.rs"]
mod invariant;
#[path = "../examples/replay/player.rs"]
mod player;
#[path = "../examples/replay/script.rs"]
mod script;
#[path = "../examples/replay/successor.rs"]
mod successor;

use serde_json::{Value, json};

/// Files of which every case passes.
const COMPLETE: [(&str, &str); 12] = [
    ("addr_ranges_find_succ", include_str!("fixtures/cases/addr_ranges_find_succ.json")),
    ("alloc_to_cache", include_str!("fixtures/cases/alloc_to_cache.json")),
    ("find_bit_range64", include_str!("fixtures/cases/find_bit_range64.json")),
    ("page_alloc_alloc", include_str!("fixtures/cases/page_alloc_alloc.json")),
    ("page_alloc_free", include_str!("fixtures/cases/page_alloc_free.json")),
    ("page_alloc_grow", include_str!("fixtures/cases/page_alloc_grow.json")),
    ("page_cache_alloc", include_str!("fixtures/cases/page_cache_alloc.json")),
    ("page_cache_flush", include_str!("fixtures/cases/page_cache_flush.json")),
    ("page_cache_invariants", include_str!("fixtures/cases/page_cache_invariants.json")),
    ("palloc_bits_find_alloc", include_str!("fixtures/cases/palloc_bits_find_alloc.json")),
    ("palloc_bits_free", include_str!("fixtures/cases/palloc_bits_free.json")),
    ("traces", TRACES),
];

/// Files with cases that ask for what is not built yet, and how many pass today.
const PARTIAL: [(&str, &str, usize); 1] =
    [("page_alloc_scavenge", include_str!("fixtures/cases/page_alloc_scavenge.json"), 3)];

const TRACES: &str = include_str!("fixtures/cases/traces.json");

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixture is JSON")
}

/// Plays one case.
fn play_one(case: Value) -> Result<(), String> {
    let file = json!({ "schema": "go-pagealloc-cases/1", "cases": [case] });
    player::play(&file).expect("a file of the schema").pop().expect("one case").result
}

#[test]
fn every_complete_file_gives_gos_answers() {
    for (file, text) in COMPLETE {
        let differ: Vec<_> = player::play(&parse(text))
            .unwrap()
            .into_iter()
            .filter_map(|outcome| Some((outcome.name, outcome.result.err()?)))
            .collect();
        assert!(differ.is_empty(), "{file}: {differ:#?}");
    }
}

#[test]
fn what_is_not_built_yet_is_named_and_the_rest_of_it_passes() {
    for (file, text, expected) in PARTIAL {
        let mut passed = 0;
        for outcome in player::play(&parse(text)).unwrap() {
            match outcome.result {
                Ok(()) => passed += 1,
                Err(why) => {
                    assert!(why.starts_with("not built yet: "), "{file}: {}: {why}", outcome.name);
                }
            }
        }
        assert_eq!(passed, expected, "{file}");
    }
}

/// Every answer in a value, by its JSON pointer, with a wrong one to put in its place.
fn wrong_answers(case: &Value) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    for (index, call) in case["calls"].as_array().into_iter().flatten().enumerate() {
        // What is recorded of the contents of a run that there was not says nothing.
        let is_none = call.get("page").is_some_and(Value::is_null);
        for answer in ["page", "base_page", "cache", "scav", "scav_pages", "released_pages"] {
            let counts = !(is_none && answer == "scav_pages" && case.get("cache").is_none());
            if let Some(value) = call.get(answer).filter(|_| counts) {
                wrong.push((format!("/calls/{index}/{answer}"), another(value)));
            }
        }
    }
    for (index, hit) in case["hits"].as_array().into_iter().flatten().enumerate() {
        wrong.push((format!("/hits/{index}"), another(hit)));
    }
    for answer in ["result", "empty", "after_cache_empty", "index", "after", "after_free"] {
        if let Some(value) = case.get(answer) {
            wrong.push((format!("/{answer}"), another(value)));
        }
    }
    for answer in ["after_alloc", "after_scav", "after_sum"] {
        for (chunk, value) in case[answer].as_object().into_iter().flatten() {
            wrong.push((format!("/{answer}/{chunk}"), another(value)));
        }
    }
    for (chunk, state) in case["after_state"].as_object().into_iter().flatten() {
        for (answer, value) in state.as_object().into_iter().flatten() {
            wrong.push((format!("/after_state/{chunk}/{answer}"), another(value)));
        }
    }
    wrong
}

/// A value of the same kind that says something else. Of a list of ranges and of a summary the
/// first part changes.
fn another(value: &Value) -> Value {
    match value {
        Value::Null => json!(64),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_u64().unwrap() + 64),
        Value::String(text) => {
            let word = u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            json!(format!("{:#x}", word ^ 1 << 63))
        }
        Value::Array(parts) => {
            let first = parts.first().map(|first| match first {
                Value::Array(range) => json!([range[0], range[1].as_u64().unwrap() - 1]),
                number => json!(number.as_u64().unwrap() + 1),
            });
            let rest = parts.iter().skip(1).cloned();
            Value::Array([first.unwrap_or(json!([511, 1]))].into_iter().chain(rest).collect())
        }
        Value::Object(_) => unreachable!("no answer is an object"),
    }
}

#[test]
fn the_player_finds_every_wrong_answer() {
    let mut changed = 0;
    let partial = PARTIAL.map(|(file, text, _)| (file, text));
    for (file, text) in [&COMPLETE[..], &partial].concat() {
        for case in parse(text)["cases"].as_array().unwrap() {
            let nested = case["cases"].as_array().cloned();
            for case in nested.unwrap_or_else(|| vec![case.clone()]) {
                if play_one(case.clone()).is_err_and(|why| why.starts_with("not built yet: ")) {
                    continue;
                }
                for (answer, wrong) in wrong_answers(&case) {
                    let mut case = case.clone();
                    *case.pointer_mut(&answer).unwrap() = wrong;
                    assert!(play_one(case.clone()).is_err(), "{file}: {answer} of {case}");
                    changed += 1;
                }
            }
        }
    }
    assert!(changed > 600, "{changed} answers");
}

#[test]
fn the_player_finds_every_wrong_answer_in_a_trace() {
    for trace in parse(TRACES)["cases"].as_array().unwrap() {
        assert_eq!(play_one(trace.clone()), Ok(()), "{}", trace["seed"]);
        for (index, op) in trace["ops"].as_array().unwrap().iter().enumerate().step_by(17) {
            let answers: &[usize] = match op[0].as_str().unwrap() {
                "alloc" | "cache_alloc" => &[2],
                "refill" | "flush" => &[1, 2],
                _ => &[],
            };
            for answer in answers {
                let mut trace = trace.clone();
                trace["ops"][index][answer] = another(&op[answer]);
                let why = play_one(trace).unwrap_err();
                assert!(why.contains(&format!("step {index}: ")), "{op}: {why}");
            }
        }
    }
}

#[test]
fn a_case_is_judged_by_its_shape() {
    let free = json!({ "before_alloc": { "7": [[0, 512]] }, "npages": 1, "frees": ["0xe00"] });
    let mut right = free.clone();
    right["after_alloc"] = json!({ "7": [[1, 511]] });
    assert_eq!(play_one(right), Ok(()));
    let mut double = free;
    double["frees"] = json!([3584, 3584]);
    assert!(play_one(double).unwrap_err().contains("double free"));

    let heap = json!({ "0": [[0, 5]] });
    let ops = json!([["alloc", 1, 5], ["refill", 0, "0xffffffffffffffc0"], ["cache_alloc", 3, 6]]);
    assert_eq!(play_one(json!({ "before_alloc": heap, "ops": ops })), Ok(()));
    let ops = json!([["alloc", 1, 5], ["alloc", 100, 6], ["free", 6, 100], ["alloc", 507, null]]);
    assert_eq!(play_one(json!({ "before_alloc": heap, "ops": ops })), Ok(()));
    let ops = json!([["alloc", 0, null]]);
    let why = play_one(json!({ "before_alloc": heap, "ops": ops })).unwrap_err();
    assert!(why.contains("a request for 0 frames"), "no answer of Go's: {why}");
    let sums = json!({ "0": [512, 512, 512], "3": [512, 512, 512] });
    let grow =
        |in_use| json!({ "chunks": [0, 3], "in_use_chunks": in_use, "after_state_sums": sums });
    assert_eq!(play_one(grow(json!([[0, 1], [3, 4]]))), Ok(()));
    let why = play_one(grow(json!([[0, 1]]))).unwrap_err();
    assert!(why.contains("chunks in use"), "{why}");
}

#[test]
fn what_can_not_be_read_fails() {
    let unreadable = [
        json!({ "name": "nothing" }),
        json!({ "name": "NoSuchStatement", "text": "all is well" }),
        json!({ "before_alloc": { "one": [] }, "ops": [] }),
        json!({ "before_alloc": { "0": [[500, 13]] }, "ops": [] }),
        json!({ "before_alloc": { "0": [] }, "ops": [["conjure", 1, 2]] }),
        json!({ "cache": { "base_page": 3, "cache": "0x1" }, "calls": [] }),
        json!({ "cache": { "base_page": 0, "cache": "0x1" }, "calls": [{ "npages": "x" }] }),
        json!({ "ops": [["alloc", 1, 0]] }),
        json!({ "before_alloc": { "0": [] }, "after_alloc": { "0": [] } }),
        json!({ "before": [], "npages": 1, "after": [] }),
        json!({ "before_free": [], "frees": [0], "after_free": [[0, 1]] }),
        json!({ "before_free": [], "npages": 0, "frees": [0], "after_free": [] }),
        json!({ "before_alloc": { "0": [] }, "calls": [{ "request_pages": "all" }] }),
        json!({ "ranges": [[1_u64 << 50, 1_u64 << 51]], "addr": 3, "index": 0 }),
    ];
    for case in unreadable {
        let why = play_one(case.clone()).unwrap_err();
        assert!(why.starts_with("the case can't be read: "), "{case}: {why}");
    }
    assert!(player::play(&json!({ "schema": "other/1", "cases": [] })).is_err());
    assert!(player::play(&json!({ "schema": "go-pagealloc-cases/1" })).is_err());
}
