//! Measures the effect of a distant archive, of more workers and of concurrent uploads.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use crate::compare::list;
use crate::data::{DataFile, Shape, Size};
use crate::delay::Delay;
use crate::results::{Results, Scaling, Spread, rounded};
use crate::rig::{ByProcess, Rig};

const ROUNDS: usize = 3;

struct Condition {
    what: &'static str,
    value: u64,
    workers: usize,
    s3_delay: Duration,
    uploads: u32,
}

impl Condition {
    fn new(what: &'static str, value: u64) -> Self {
        Self {
            what,
            value,
            workers: 1,
            s3_delay: Duration::ZERO,
            uploads: 1,
        }
    }
}

struct Measurement {
    rows_per_second: f64,
    unfairness: f64,
    peak_mib: ByProcess<f64>,
}

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    let delays = [0, 20, 150].map(|delay| Condition {
        s3_delay: Duration::from_millis(delay),
        ..Condition::new("s3 delay ms", delay)
    });
    let workers = [1, 2, 4].map(|workers| Condition {
        workers: workers as usize,
        ..Condition::new("workers", workers)
    });
    let uploads = [1, 2, 4, 8].map(|uploads| Condition {
        uploads: uploads as u32,
        ..Condition::new("uploads at once", uploads)
    });
    results.scaling.clear();
    let long = DataFile::make(Shape::Flights, Size::Million)?;
    let short = DataFile::flights_once()?;
    measure(rig, results, &delays, &long).await?;
    measure(rig, results, &workers, &long).await?;
    measure(rig, results, &uploads, &short).await
}

/// Measures all conditions in turns, and compares each with the first.
async fn measure(
    rig: &Rig,
    results: &mut Results,
    conditions: &[Condition],
    file: &DataFile,
) -> Result<()> {
    let mut measured: Vec<Vec<(Measurement, f64)>> =
        conditions.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        let mut first = None;
        for (condition, all) in conditions.iter().zip(&mut measured) {
            let one = measure_one(rig, condition, file).await?;
            let ratio = one.rows_per_second / *first.get_or_insert(one.rows_per_second);
            eprintln!(
                "  {} {}: {:.0} rows/s, {ratio:.2}",
                condition.what, condition.value, one.rows_per_second
            );
            all.push((one, ratio));
        }
    }
    rig.clean().await?;
    println!(
        "\n| {} | rows/s | to the first | unfairness | peak MiB |",
        conditions[0].what
    );
    println!("|---|---|---|---|---|");
    for (condition, measurements) in conditions.iter().zip(&measured) {
        let scaling = summary(condition, measurements);
        print_row(&scaling);
        results.scaling.push(scaling);
    }
    results.save()
}

fn summary(condition: &Condition, measurements: &[(Measurement, f64)]) -> Scaling {
    let median = |figure: fn(&Measurement) -> f64| {
        let figures = measurements.iter().map(|(one, _)| figure(one));
        rounded(Spread::of(figures).median)
    };
    Scaling {
        what: condition.what.to_owned(),
        value: condition.value,
        rows_per_second: median(|one| one.rows_per_second).round(),
        ratio: Spread::of(measurements.iter().map(|(_, ratio)| rounded(*ratio))),
        unfairness: (condition.uploads > 1).then(|| median(|one| one.unfairness)),
        peak_mib: measurements
            .last()
            .map(|(one, _)| one.peak_mib.clone())
            .unwrap_or_default(),
    }
}

fn print_row(scaling: &Scaling) {
    let Spread {
        least,
        median,
        most,
    } = scaling.ratio;
    let unfairness = scaling.unfairness.map(|share| format!("{share:.2}"));
    println!(
        "| {} | {:.0} | {median:.2} ({least:.2} to {most:.2}) | {} | {} |",
        scaling.value,
        scaling.rows_per_second,
        unfairness.unwrap_or_default(),
        list(&scaling.peak_mib, 0)
    );
}

/// Measures one condition, with new processes that hold nothing from another condition.
async fn measure_one(rig: &Rig, condition: &Condition, file: &DataFile) -> Result<Measurement> {
    rig.clear().await?;
    let proxy = Delay::start(rig.s3_address()?, condition.s3_delay).await?;
    let endpoint = format!("http://{}", proxy.address);
    let settings = match condition.what {
        "s3 delay ms" => vec![("AWS_ENDPOINT_URL", endpoint.as_str())],
        _ => vec![],
    };
    let carga = rig.carga(condition.workers, &settings).await?;
    let start = Instant::now();
    let imports = (0..condition.uploads).map(|_| carga.import(file, condition.uploads));
    let imported = try_join_all(imports).await?;
    let seconds = start.elapsed().as_secs_f64();
    let ends = Spread::of(
        imported
            .iter()
            .map(|imported| imported.completed.as_secs_f64()),
    );
    let mean = imported
        .iter()
        .map(|imported| imported.completed.as_secs_f64())
        .sum::<f64>()
        / imported.len() as f64;
    Ok(Measurement {
        rows_per_second: (file.rows * u64::from(condition.uploads)) as f64 / seconds,
        unfairness: (ends.most - mean).max(mean - ends.least) / mean,
        peak_mib: carga.peak_mib(),
    })
}
