//! The chart in the README: the import time of the flights by arm.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use carga_testkit::repository;

use crate::arms::Arm;
use crate::compression::Compression;
use crate::data::Shape;
use crate::results::{ArmResult, Comparison, Results};

const WIDTH: f64 = 760.0;
const BAR_HEIGHT: f64 = 22.0;
const GAP: f64 = 12.0;
const LEFT: f64 = 300.0;
const TOP: f64 = 54.0;
/// The space for the figures after the longest bar.
const RIGHT: f64 = 130.0;

pub(crate) fn write(results: &Results) -> Result<()> {
    let flights = results.comparisons.iter().filter(|comparison| {
        comparison.shape == Shape::Flights && comparison.compression == Compression::None
    });
    let Some(longest) = flights.max_by_key(|comparison| comparison.rows) else {
        return Ok(());
    };
    let path = repository().join("bench/chart.svg");
    fs::write(&path, draw(longest, &results.machine.date)?)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn draw(comparison: &Comparison, date: &str) -> Result<String> {
    let mut arms: Vec<&ArmResult> = comparison.arms.iter().collect();
    arms.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let longest = arms.iter().map(|arm| arm.seconds).fold(0.0, f64::max);
    let height = TOP + arms.len() as f64 * (BAR_HEIGHT + GAP) + GAP;
    let mib = comparison.bytes as f64 / f64::from(1 << 20);
    let mut svg = String::new();
    // The white background keeps the chart readable on a dark page.
    write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="#24292f">
<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="#d0d7de"/>
<text x="16" y="26" font-size="15" font-weight="bold">Seconds to import {} rows ({mib:.0} MiB), {date}; shorter is better</text>
<text x="16" y="43" fill="#57606a">after each bar: the seconds, and the ratio to the bare \copy into the landing table</text>
"##,
        comparison.rows
    )?;
    for (index, arm) in arms.iter().enumerate() {
        let y = TOP + index as f64 * (BAR_HEIGHT + GAP) + GAP / 2.0;
        let width = (arm.seconds / longest * (WIDTH - LEFT - RIGHT)).max(1.0);
        let middle = y + BAR_HEIGHT * 0.7;
        let color = match arm.arm {
            Arm::CopyLanding | Arm::CopyTyped | Arm::CopyBinary | Arm::Sqlite | Arm::Pgloader => {
                "#8c959f"
            }
            _ => "#bc4c00",
        };
        write!(
            svg,
            r##"<text x="{}" y="{middle:.1}" text-anchor="end">{}</text>
<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR_HEIGHT}" fill="{color}"/>
<text x="{:.1}" y="{middle:.1}">{:.2} s · {:.2} ×</text>
"##,
            LEFT - 8.0,
            arm.arm.title(),
            LEFT + width + 8.0,
            arm.seconds,
            arm.ratio.median
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}
