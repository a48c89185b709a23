//! The tables in docs/models.md: each loom model, how far it was explored, and the bugs that are
//! planted for it; and of those that are pairs of operations, how far each pair was. Models and
//! plants are those of the source; threads, preemptions and executions are what `make models` has
//! printed last, which this test writes there if `MODELS_TABLE` names it. Without that it only looks
//! whether the page is as it would write it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::PLANTS;

const HEAD: &str =
    "| model | threads | preemptions | executions | plants |\n|---|---|---|---|---|\n";

/// What the table of pairs stands between.
const PAIRS: [&str; 2] = ["<!-- pairs -->\n", "<!-- end of pairs -->\n"];

/// A model of the source.
struct Model {
    name: String,
    /// The bound on preemptions in `make test`, if it is another one there.
    quick: Option<String>,
}

/// How far a model was explored, as text.
#[derive(Clone)]
struct Explored {
    threads: String,
    bound: String,
    executions: String,
}

#[test]
fn the_page_lists_models_and_plants() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md");
    let old = fs::read_to_string(&page).expect("the page");
    let (before, rest) = old.split_once(HEAD).expect("the table");
    let rows = rest.lines().take_while(|line| line.starts_with('|')).map(|row| format!("{row}\n"));
    let rows: String = rows.collect();
    let was_asked = |(_, explored): &(String, Explored)| !explored.threads.is_empty();
    let mut explored: HashMap<_, _> = rows.lines().map(read_row).filter(was_asked).collect();
    let table = std::env::var("MODELS_TABLE");
    if let Ok(table) = &table {
        explored.extend(read_table(&fs::read_to_string(table).expect("the table of a run")));
    }
    let (before, rest_of_it) = before.split_once(PAIRS[0]).expect("the pairs");
    let (old_triangle, between) = rest_of_it.split_once(PAIRS[1]).expect("their end");
    let triangle = triangle(&explored);
    let new: String = models().iter().map(|model| row(model, explored.get(&model.name))).collect();
    let after = &rest[rows.len()..];
    if table.is_ok() {
        let parts = [before, PAIRS[0], &triangle, PAIRS[1], between, HEAD, &new, after];
        fs::write(page, parts.concat()).expect("the page");
        return;
    }
    let differ: Vec<_> = rows.lines().filter(|row| !new.lines().any(|line| line == *row)).collect();
    assert!(
        rows == new && old_triangle == triangle,
        "docs/models.md: `make models MODELS=..` writes the lines of models that have changed, \
         MODELS_TABLE=/dev/null `cargo test --test planted the_page` only names and plants; \
         not true, or at another place: {differ:#?}"
    );
}

#[test]
fn every_model_that_is_named_is_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md");
    let page = fs::read_to_string(page).expect("the page");
    let models = models();
    let named = page.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let unknown: Vec<_> =
        named.filter(|name| !models.iter().any(|model| model.name == *name)).collect();
    assert!(unknown.is_empty(), "docs/models.md names what is no model: {unknown:#?}");
}

#[test]
fn every_plant_has_its_model() {
    let models = models();
    let has_none = |model: &str| !models.iter().any(|known| known.name == model);
    let wrong: Vec<_> =
        PLANTS.iter().filter(|plant| has_none(plant.model)).map(|plant| plant.name).collect();
    assert!(wrong.is_empty(), "they ask a model that is not in src/models: {wrong:#?}");
}

/// All models, in the order of the source.
fn models() -> Vec<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models");
    let files = fs::read_dir(folder).expect("models").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| !path.ends_with("mod.rs")).collect();
    files.sort();
    let mut models = Vec::new();
    for file in files {
        let module = file.file_stem().expect("a name").to_str().expect("text").to_owned();
        let text = fs::read_to_string(file).expect("a source file");
        if module == "pairs" {
            let operations = operations();
            models.extend(all_pairs(&operations).map(|name| Model { name, quick: None }));
        }
        for test in text.split("#[test]\nfn ").skip(1) {
            let (name, body) = test.split_once('(').expect("a function");
            let quick = body.split_once("explore_long(").and_then(|(_, rest)| rest.split_once(','));
            let quick = quick.map(|(bound, _)| bound.to_owned());
            models.push(Model { name: format!("{module}::{name}"), quick });
        }
    }
    models
}

/// The operations that `src/models/pairs.rs` makes a model of each pair of.
fn operations() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models/pairs.rs");
    let text = fs::read_to_string(file).expect("a source file");
    let (_, list) = text.split_once("\npairs! {\n").expect("the pairs");
    let lines = list.lines().take_while(|line| *line != "}");
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The models of each operation with itself and those behind it, as the source makes them.
fn all_pairs(operations: &[String]) -> impl Iterator<Item = String> + '_ {
    operations
        .iter()
        .enumerate()
        .flat_map(move |(at, one)| operations[at..].iter().map(move |other| pair(one, other)))
}

fn pair(one: &str, other: &str) -> String {
    format!("pairs::{one}::{other}")
}

/// The executions of each pair, as a triangle; with a plus if there are more.
fn triangle(explored: &HashMap<String, Explored>) -> String {
    let operations = operations();
    let cell = |one: &String, other: &String| {
        let executions = &explored.get(&pair(one, other)).map_or("-", |pair| &pair.executions);
        match executions.split_once(' ') {
            Some((count, _)) => format!(" {count}+ |"),
            None => format!(" {executions} |"),
        }
    };
    let row = |(at, other): (usize, &String)| {
        let cells: String = operations[..=at].iter().map(|one| cell(one, other)).collect();
        format!("| {other} |{cells}{}\n", " |".repeat(operations.len() - at - 1))
    };
    let rows: String = operations.iter().enumerate().map(row).collect();
    let rule = "--:|".repeat(operations.len());
    format!("| | {} |\n|---|{rule}\n{rows}", operations.join(" | "))
}

/// What a row of the page says.
fn read_row(row: &str) -> (String, Explored) {
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    let [_, name, threads, bound, executions, ..] = cells[..] else { panic!("no row: {row}") };
    let bound = bound.split('(').next().unwrap_or_default().trim_end();
    let [threads, bound, executions] = [threads, bound, executions].map(str::to_owned);
    (name.trim_matches('`').to_owned(), Explored { threads, bound, executions })
}

/// What a run of models has said: for each a line of name, threads, bound, executions, seconds and
/// whether these were all; of a model that explores several times one for each.
fn read_table(table: &str) -> HashMap<String, Explored> {
    let mut sums: HashMap<String, (String, String, u64, f32, bool)> = HashMap::new();
    for line in table.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [name, threads, bound, executions, seconds, end] = words[..] else {
            panic!("not of a model: {line}")
        };
        let first = || (threads.to_owned(), bound.to_owned(), 0, 0.0, true);
        let sum = sums.entry(name.to_owned()).or_insert_with(first);
        sum.2 += executions.parse::<u64>().expect("a number");
        sum.3 += seconds.parse::<f32>().expect("a number");
        sum.4 &= end == "ended";
    }
    let explored = sums.into_iter().map(|(name, (threads, bound, count, seconds, is_all))| {
        let count = grouped(count);
        let executions =
            if is_all { count } else { format!("{count} in {seconds:.0} s, not to its end") };
        (name, Explored { threads, bound, executions })
    });
    explored.collect()
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |(at, digit): (usize, char)| {
        let is_first_of_three = at > 0 && (digits.len() - at).is_multiple_of(3);
        [if is_first_of_three { "," } else { "" }.to_owned(), digit.to_string()].concat()
    };
    digits.chars().enumerate().map(comma).collect()
}

/// The row of a model.
fn row(model: &Model, explored: Option<&Explored>) -> String {
    let Model { name, quick } = model;
    let plants = PLANTS.iter().filter(|plant| plant.model == *name).map(|plant| plant.name);
    let plants = plants.collect::<Vec<_>>().join("; ");
    let never = Explored {
        threads: String::new(),
        bound: String::new(),
        executions: "never asked".to_owned(),
    };
    let Explored { threads, bound, executions } = explored.unwrap_or(&never);
    let quick = quick.as_ref().filter(|_| explored.is_some());
    let quick = quick.map_or_else(String::new, |quick| format!(" ({quick} in `make test`)"));
    format!("| `{name}` | {threads} | {bound}{quick} | {executions} | {plants} |\n")
}
