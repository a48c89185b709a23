//! Asks z3 about terms.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::terms::{EXACT, Node, Operator, Term};

/// Looks for values of the inputs for which `truth` holds; `None` is the proof that there are none.
pub fn find(truth: Term, inputs: &[Term]) -> Option<Vec<u64>> {
    if let Some(value) = truth.value() {
        return (value != 0).then(|| vec![0; inputs.len()]);
    }
    // Inputs are declared; all that is made of them is one term, each part of it named once. (As
    // definitions of their own the solver would copy the parts at each use.)
    let (mut script, mut parts) = (String::from("(set-logic QF_BV)\n"), String::new());
    let mut written = HashSet::new();
    for input in inputs {
        let _ = writeln!(script, "(declare-const {} (_ BitVec {}))", input.name(), input.width());
        written.insert(*input);
    }
    write_down(truth, &mut written, &mut parts);
    let ends = ")".repeat(written.len() - inputs.len());
    let _ = writeln!(script, "(assert {parts}{}{ends})\n(check-sat)", truth.name());
    let names: Vec<_> = inputs.iter().map(|term| term.name()).collect();
    let _ = writeln!(script, "(get-value ({}))", names.join(" "));
    let answer = ask(&script);
    match answer.lines().next() {
        Some("unsat") => None,
        Some("sat") => Some(read_values(&answer, &names)),
        _ => panic!("the solver said:\n{answer}"),
    }
}

/// Names a term and all below it, the lower ones first.
fn write_down(term: Term, written: &mut HashSet<Term>, script: &mut String) {
    let mut pending = vec![term];
    while let Some(&term) = pending.last() {
        let Node { operator, operands, width } = term.node();
        let missing = operands.iter().find(|operand| !written.contains(operand));
        if let Some(missing) = missing.filter(|_| !written.contains(&term)) {
            pending.push(*missing);
            continue;
        }
        pending.pop();
        if !written.insert(term) {
            continue;
        }
        let meaning = match operator {
            Operator::Constant(value) if width == 0 => (value != 0).to_string(),
            Operator::Constant(value) => format!("(_ bv{value} {width})"),
            Operator::Apply(operator) if operator == EXACT => {
                let width = operands[0].width();
                let long = |t: Term| format!("((_ zero_extend {width}) {})", t.name());
                let product = format!("(bvmul {} {})", long(operands[0]), long(operands[1]));
                let upper = format!("((_ extract {} {width}) {product})", 2 * width - 1);
                format!("(= {upper} (_ bv0 {width}))")
            }
            Operator::Apply(operator) => {
                let operands: Vec<_> = operands.iter().map(|t| format!(" {}", t.name())).collect();
                format!("({operator}{})", operands.concat())
            }
            Operator::Input(name) => panic!("{name} is not among the inputs"),
        };
        let _ = writeln!(script, "(let (({} {meaning}))", term.name());
    }
}

fn ask(script: &str) -> String {
    let z3 = Command::new("z3")
        .args(["-smt2", "-in", "-T:300"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut z3 = z3.expect("z3 runs; `tools/setup.sh solver` installs it");
    let mut input = z3.stdin.take().expect("a pipe");
    input.write_all(script.as_bytes()).expect("z3 listens");
    drop(input);
    let output = z3.wait_with_output().expect("z3 ends");
    String::from_utf8(output.stdout).expect("plain text")
}

/// Reads `((t0 #x00) (t1 #b1))`.
fn read_values(answer: &str, names: &[String]) -> Vec<u64> {
    let words: Vec<_> = answer
        .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
        .filter(|word| !word.is_empty())
        .collect();
    let value = |name: &String| {
        let at = words.iter().position(|word| word == name).expect("a value for each input");
        let digits = words[at + 1];
        let (digits, radix) = match digits.strip_prefix("#x") {
            Some(digits) => (digits, 16),
            None => (digits.strip_prefix("#b").expect("a number"), 2),
        };
        u64::from_str_radix(digits, radix).expect("a number")
    };
    names.iter().map(value).collect()
}
