//! The charts of the README, from the figures of a run.
//!
//! A row of dots for each workload, on a logarithmic scale, since allocators differ by factors; and
//! lines for what changes along something: rounds of churn, percentiles.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Figure, short};

type Drawing<'d> = DrawingArea<SVGBackend<'d>, plotters::coord::Shift>;

/// An allocator's colour; ours stands out.
const COLOURS: [(&str, RGBColor); 12] = [
    ("frametree", RGBColor(214, 39, 40)),
    ("frametree, tree only", RGBColor(255, 152, 150)),
    ("frame-alloc", RGBColor(31, 119, 180)),
    ("frame-alloc, depot", RGBColor(23, 190, 207)),
    ("buddy_system_allocator", RGBColor(255, 127, 14)),
    ("bitmap-allocator", RGBColor(44, 160, 44)),
    ("ax-allocator", RGBColor(152, 223, 138)),
    ("free-list", RGBColor(148, 103, 189)),
    ("buddy-slab-allocator", RGBColor(140, 86, 75)),
    ("lock + stack", RGBColor(127, 127, 127)),
    ("lock + bitmap", RGBColor(188, 189, 34)),
    ("floor: one locked RMW", RGBColor(0, 0, 0)),
];

/// Whose figures are written beside the dots, and where those end.
const OURS: &str = "frametree";
const OURS_RIGHT: i32 = 238;

/// What is shown for one thread, and for two, at [`SIZE`].
const ONE: [&str; 13] = [
    "hot pair",
    "bursts of 512",
    "allocate all",
    "free all in order",
    "free all at random",
    "replace at random, 50 % full",
    "replace at random, 99 % full",
    "replace at random, long in use",
    "2 MiB pair",
    "run of 17, fragmented, replaced",
    "run of 100, fragmented, replaced",
    "the last free frame",
    "mixed sizes",
];
const TWO: [&str; 6] = [
    "hot pair",
    "bursts of 2048",
    "replace at random, 50 % full",
    "2 MiB pair",
    "mixed sizes",
    "freed on the other CPU",
];
const SIZE: &str = "8 GiB";
const CHURN: &str = "not in whole 2 MiB, 50 % held, round ";
const LATENCY: &str = "mixed sizes, latency: alloc, ";

/// Draws all of them into a folder.
pub fn draw(figures: &[Figure], folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let title = "Nanoseconds an operation, 8 GiB, one thread (less is better)";
    dots(figures, &ONE, 1, title, &folder.join("bench-one-thread.svg"))?;
    let title = "Nanoseconds an operation, 8 GiB, two threads (less is better)";
    dots(figures, &TWO, 2, title, &folder.join("bench-two-threads.svg"))?;
    let title = "Free memory that is not in whole 2 MiB frames, %, by rounds of churn, half held";
    lines(figures, CHURN, false, title, &folder.join("bench-churn.svg"))?;
    let title = "An allocation takes at most so many ns, by percentile, mixed sizes, under load";
    lines(figures, LATENCY, true, title, &folder.join("bench-latency.svg"))
}

/// One row of dots for each workload.
fn dots(
    figures: &[Figure],
    workloads: &[&str],
    threads: usize,
    title: &str,
    path: &Path,
) -> Result<(), Box<dyn Error>> {
    let height = 110 + 34 * workloads.len() as u32;
    let root = SVGBackend::new(path, (960, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(750);
    let rows = workloads.len() as f64;
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(230)
        .build_cartesian_2d((0.5f64..1e7).log_scale(), rows - 0.5..-0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_labels(8)
        .light_line_style(WHITE)
        .x_label_formatter(&|ns| short(*ns))
        .y_labels(0)
        .draw()?;
    for (row, workload) in workloads.iter().enumerate() {
        let (_, y) = chart.backend_coord(&(1.0, row as f64));
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        plot.draw(&Text::new(*workload, (12, y - 6), style))?;
        for (name, colour) in COLOURS.iter().rev() {
            let is_it = |figure: &&Figure| {
                figure.row() == (*workload, SIZE, threads) && figure.allocator == *name
            };
            let Some(figure) = figures.iter().find(is_it) else { continue };
            let at = (figure.median.max(0.5), row as f64);
            let size = if *name == OURS { 8 } else { 5 };
            chart.draw_series([Circle::new(at, size, colour.filled())])?;
            if *name == OURS {
                let style = ("sans-serif", 12).into_font().color(colour);
                let style = style.pos(Pos::new(HPos::Right, VPos::Center));
                plot.draw(&Text::new(short(figure.median), (OURS_RIGHT, y), style))?;
            }
        }
    }
    draw_legend(&legend)?;
    Ok(root.present()?)
}

/// A line for each allocator over the number at the end of the workload's name.
fn lines(
    figures: &[Figure],
    prefix: &str,
    is_percentile: bool,
    title: &str,
    path: &Path,
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let (plot, legend) = root.split_horizontally(750);
    let mut builder = ChartBuilder::on(&plot);
    builder.caption(title, ("sans-serif", 16)).margin(10);
    builder.x_label_area_size(30).y_label_area_size(60);
    // Percentiles by the share that is above: 1 in 2, 100, 1000, 10000.
    if is_percentile {
        let ys = (5f64..1e7).log_scale();
        let mut chart = builder.build_cartesian_2d((2f64..1e4).log_scale(), ys)?;
        let above = |x: &f64| format!("1 in {x:.0}");
        let up_to = |ns: &f64| short(*ns);
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE).x_label_formatter(&above).y_label_formatter(&up_to).draw()?;
        for (name, colour) in COLOURS {
            let points = points(figures, prefix, name).into_iter();
            let points = points.map(|(percent, ns)| (100.0 / (100.0 - percent), ns.max(5.0)));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(width(name))))?;
        }
    } else {
        let mut chart = builder.build_cartesian_2d(0f64..100f64, 0f64..100f64)?;
        let percent = |percent: &f64| format!("{percent:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE).x_label_formatter(&percent).y_label_formatter(&percent);
        mesh.draw()?;
        for (name, colour) in COLOURS {
            let points = points(figures, prefix, name);
            chart.draw_series(LineSeries::new(points, colour.stroke_width(width(name))))?;
        }
    }
    draw_legend(&legend)?;
    Ok(root.present()?)
}

fn width(name: &str) -> u32 {
    // Ours is drawn first: what has the same figures shows on it.
    if name == OURS { 7 } else { 2 }
}

/// The figures of a family of workloads, by the number that ends their names.
fn points(figures: &[Figure], prefix: &str, name: &str) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for figure in figures.iter().filter(|figure| figure.allocator == name) {
        let Some(rest) = figure.workload.strip_prefix(prefix) else { continue };
        let Ok(number) = rest.trim_end_matches(" %").parse() else { continue };
        if !points.iter().any(|(at, _)| *at == number) {
            points.push((number, figure.median));
        }
    }
    points
}

fn draw_legend(area: &Drawing<'_>) -> Result<(), Box<dyn Error>> {
    for (at, (name, colour)) in COLOURS.iter().enumerate() {
        let y = 50 + 22 * at as i32;
        let size = if *name == OURS { 8 } else { 5 };
        area.draw(&Circle::new((14, y), size, colour.filled()))?;
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        area.draw(&Text::new(*name, (28, y - 6), style))?;
    }
    Ok(())
}
