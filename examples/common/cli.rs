//! The command line of the data runners: plays every file named, prints a line for each case and
//! a count at the end.

use std::process::ExitCode;

use serde_json::Value;

use crate::case::Outcome;

/// Plays the cases of a parsed file; `Err` if it is no file of cases.
type Play = fn(&Value) -> Result<Vec<Outcome>, String>;

/// Exit status 0 if every case of every file passed, 1 if not, 2 if no file is named.
pub fn run(usage: &str, play: Play) -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() || files.iter().any(|file| file.starts_with('-')) {
        eprintln!("{usage}");
        return ExitCode::from(2);
    }
    let (mut passed, mut failed, mut unreadable) = (0, 0, 0);
    for file in &files {
        match read(file).and_then(|value| play(&value)) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    print(file, &outcome);
                    *(if outcome.result.is_ok() { &mut passed } else { &mut failed }) += 1;
                }
            }
            Err(why) => {
                println!("{file}: can't be played: {why}");
                unreadable += 1;
            }
        }
    }
    if unreadable > 0 {
        println!("{unreadable} of {} files could not be played", files.len());
    }
    println!("{passed} passed, {failed} failed");
    if failed + unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(file: &str) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))
}

fn print(file: &str, Outcome { name, result }: &Outcome) {
    match result {
        Ok(()) => println!("ok   {file}: {name}"),
        Err(why) => println!("FAIL {file}: {name}: {why}"),
    }
}
