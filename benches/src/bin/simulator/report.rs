//! What is printed: first this machine, predicted and measured; then a large one.

use std::path::Path;

use crate::coherence::{MOST, Machine};
use crate::contestants::{Bitmap, Contestant, Stack};
use crate::cpus::{Found, simulate};
use crate::support::Threads;
use crate::workloads::{ALL, Workload};

type Pool = frametree::FramePool<Threads>;

/// A machine with two sockets of 16 clusters of 16 CPUs each. What lines cost between CPUs of such
/// machines is published for AMD's EPYC of the second to fourth generation: some 20 ns within a
/// cluster, 110 within a socket, 220 between sockets.
const LARGE: Machine = Machine {
    name: "2 sockets of 256 CPUs",
    load: 300,
    store: 300,
    read_modify_write: 5500,
    work: 300,
    pause: 15_000,
    memory: 100_000,
    near: 20_000,
    far: 110_000,
    remote: 220_000,
    cluster: 16,
    socket: 256,
};

/// What was measured here: of each contestant and workload, nanoseconds of a pair on one thread
/// and on two; and what the model is told.
#[derive(serde::Deserialize)]
struct Measured {
    read_modify_write: f64,
    distance: f64,
    rows: Vec<Row>,
}

#[derive(serde::Deserialize)]
struct Row {
    contestant: String,
    workload: String,
    threads: usize,
    nanoseconds: f64,
}

pub fn run(measured: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let measured: Measured = serde_json::from_str(&std::fs::read_to_string(measured)?)?;
    here(&measured);
    println!(
        "\nA machine of {}: nanoseconds of a pair on each CPU, throughput as a share of",
        LARGE.name
    );
    println!("linear, and lines that move between CPUs for each pair\n");
    let mut are_met = true;
    for workload in ALL {
        println!("{}", workload.name());
        are_met &= scale::<Pool>(workload, &[1, 8, 64, MOST]);
        scale::<Stack>(workload, &[1, 8, 64]);
        scale::<Bitmap>(workload, &[1, 8, 64]);
    }
    let verdict = if are_met { "met" } else { "MISSED" };
    println!(
        "\nTarget: 0.9 of linear on {MOST} CPUs, under 0.05 lines a pair, where a CPU could do"
    );
    println!("it alone: {verdict}");
    Ok(())
}

/// The first row fixes what stands between two accesses; all others are predictions.
fn here(measured: &Measured) {
    let distance = (measured.distance * 1000.0) as u64;
    let mut machine = Machine {
        name: "this machine",
        read_modify_write: (measured.read_modify_write * 1000.0) as u64,
        near: distance,
        far: distance,
        remote: distance,
        load: 100,
        store: 100,
        work: 0,
        ..LARGE
    };
    let goal = measured.rows.iter().find(|row| {
        row.contestant == Pool::NAME && row.workload == Workload::Pair.name() && row.threads == 1
    });
    let goal = goal.map_or(0.0, |row| row.nanoseconds);
    while machine.work < 3000 && pair_of(&run_one::<Pool>(machine, Workload::Pair, 1), 1) < goal {
        machine.work += 20;
    }
    println!(
        "This machine: a line moves in {:.0} ns, a read-modify-write takes {:.1}; fitted on the",
        measured.distance, measured.read_modify_write
    );
    println!("first row: {} ps of work between two accesses\n", machine.work);
    println!(
        "{:<14} {:<22} {:>7} {:>10} {:>10} {:>6}",
        "", "", "threads", "simulated", "measured", "ratio"
    );
    for row in &measured.rows {
        let Some(workload) = ALL.into_iter().find(|workload| workload.name() == row.workload)
        else {
            continue;
        };
        let found = match row.contestant.as_str() {
            Pool::NAME => run_one::<Pool>(machine, workload, row.threads),
            Stack::NAME => run_one::<Stack>(machine, workload, row.threads),
            _ => run_one::<Bitmap>(machine, workload, row.threads),
        };
        let simulated = pair_of(&found, row.threads);
        println!(
            "{:<14} {:<22} {:>7} {simulated:>8.1}ns {:>8.1}ns {:>6.2}",
            row.contestant,
            row.workload,
            row.threads,
            row.nanoseconds,
            simulated / row.nanoseconds
        );
    }
}

fn run_one<C: Contestant>(machine: Machine, workload: Workload, cpus: usize) -> Found {
    // Several steps of the longest.
    let length = if workload == Workload::Burst(8192) { 500_000 } else { 100_000 };
    simulate::<C>(machine, workload, cpus, length, 7)
}

/// Nanoseconds of a pair on each CPU, a mean over all.
fn pair_of(found: &Found, cpus: usize) -> f64 {
    found.time * cpus as f64 / found.pairs.max(1) as f64
}

/// Whether the targets are met on the most CPUs.
fn scale<C: Contestant>(workload: Workload, counts: &[usize]) -> bool {
    let mut alone = 0.0;
    let mut is_met = true;
    for &cpus in counts {
        let found = run_one::<C>(LARGE, workload, cpus);
        let rate = found.pairs as f64 / found.time;
        if cpus == 1 {
            alone = rate;
        }
        let share = rate / (alone * cpus as f64);
        let lines = found.transfers as f64 / found.pairs.max(1) as f64;
        println!(
            "  {:<14} {cpus:>4} CPUs {:>9.1} ns {share:>6.2} {lines:>8.3} lines",
            C::NAME,
            cpus as f64 / rate
        );
        if cpus == *counts.last().expect("counts") {
            for hot in found.hottest.iter().filter(|hot| hot.transfers * 100 > found.pairs) {
                let sites: Vec<_> = hot.sites.iter().map(|(site, _)| site.as_str()).collect();
                println!("      {} moves of one line: {}", hot.transfers, sites.join(", "));
            }
        }
        is_met = !workload.is_private() || (share >= 0.9 && lines < 0.05);
    }
    is_met
}
