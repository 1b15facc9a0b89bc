//! Compares tower-refresh with other libraries that attach and refresh tokens. The README shows how to run it.
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]
#![allow(clippy::disallowed_types, reason = "the rules on locks are for the library")]

mod api;
mod client;
mod dependencies;
mod endpoint;
mod machine;
mod markdown;
mod peer;
mod peers;
mod pictures;
mod report;
mod scenarios;
mod subject;
#[path = "../../support/svg.rs"]
mod svg;

use std::env;
use std::fs;
use std::path::Path;

use tokio::runtime::{Builder, Runtime};

use crate::machine::Machine;
use crate::peer::{About, BoxError, Scenario};
use crate::report::{Cell, Report, Row};
use crate::scenarios::attach::{Attach, HEADERS, ROUNDS};
use crate::subject::Subject;

const BENCHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> Result<(), BoxError> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => write(&measure(peers::all())?),
        ["only", word] => {
            let mut chosen = peers::all();
            chosen.retain(|subject| {
                subject.about().is_baseline() || subject.about().name.contains(word)
            });
            print!("{}", markdown::table(&measure(chosen)?));
            Ok(())
        }
        ["size"] => {
            for about in peers::all().iter().map(|subject| subject.about()) {
                match dependencies(about) {
                    Cell::Measured(count) => println!("{count:5}  {}", about.name),
                    Cell::Failed(error) => println!("    –  {}: {error}", about.name),
                    Cell::NotApplicable(_) => {}
                }
            }
            Ok(())
        }
        _ => Err("usage: peers [only WORD | size]".into()),
    }
}

fn write(report: &Report) -> Result<(), BoxError> {
    let table = markdown::table(report);
    println!("{table}");
    let (results, pictures) =
        (Path::new(BENCHES).join("peers/results"), Path::new(BENCHES).join("pictures"));
    fs::create_dir_all(&results)?;
    fs::create_dir_all(&pictures)?;
    fs::write(results.join("peers.md"), table)?;
    fs::write(results.join("peers.json"), serde_json::to_string_pretty(report)? + "\n")?;
    fs::write(pictures.join("added-time.svg"), pictures::added_time(report))?;
    fs::write(pictures.join("token-requests.svg"), pictures::token_requests(report))?;
    Ok(())
}

fn measure(subjects: Vec<Box<dyn Subject>>) -> Result<Report, BoxError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Some peers need a runtime although nothing waits.
    let _entered = runtime.enter();

    eprintln!("a fresh token: {ROUNDS} rounds");
    let attached = attach(&subjects, &runtime);
    let names: Vec<_> = subjects.iter().map(|subject| subject.about().name).collect();
    let baseline = |about: &About| names.iter().position(|name| *name == about.baseline);

    let (mut rows, mut baselines) = (Vec::new(), Vec::new());
    for (subject, own) in subjects.iter().zip(&attached) {
        let about = subject.about();
        eprintln!("token requests: {}", about.name);
        let baseline = &attached[baseline(about).ok_or("an unknown baseline")?];
        let added = HEADERS.iter().zip(own.iter().zip(baseline));
        let added = added.map(|(headers, pair)| match pair {
            (Ok(own), Ok(baseline)) => Cell::Measured(own.added(baseline, *headers)),
            (Err(error), _) | (_, Err(error)) => Cell::Failed(error.to_string()),
        });
        let count = |scenario| match about.is_baseline() {
            true => Cell::NotApplicable("no token".to_owned()),
            false => subject.count(&runtime, scenario),
        };
        let row = Row {
            name: about.name,
            versions: about.packages.iter().map(|package| versioned(package)).collect(),
            fetches: about.fetches,
            attach: added.collect(),
            cold: count(Scenario::Cold),
            failing: count(Scenario::Failing),
            dropped: count(Scenario::Dropped),
            late: count(Scenario::Late),
            dependencies: dependencies(about),
        };
        if about.is_baseline() { &mut baselines } else { &mut rows }.push(row);
    }
    Ok(Report { machine: Machine::look(), rows, baselines })
}

/// Measures all peers in turn, in each round in the opposite order.
fn attach(subjects: &[Box<dyn Subject>], runtime: &Runtime) -> Vec<Vec<Result<Attach, BoxError>>> {
    let mut all = Vec::new();
    for subject in subjects {
        let prepare = |headers: &usize| {
            let mut attach = subject.attach(runtime, *headers)?;
            attach.count()?;
            Ok(attach)
        };
        all.push(HEADERS.iter().map(prepare).collect::<Vec<_>>());
    }
    for round in 0..ROUNDS {
        let mut cells: Vec<_> = all.iter_mut().flatten().collect();
        if round % 2 == 1 {
            cells.reverse();
        }
        for cell in cells {
            if let Ok(attach) = cell
                && let Err(error) = attach.round()
            {
                *cell = Err(error);
            }
        }
    }
    all
}

fn dependencies(about: &About) -> Cell<usize> {
    if about.manifest.is_empty() {
        return Cell::NotApplicable("no library".to_owned());
    }
    dependencies::count(about).into()
}

fn versioned(package: &str) -> String {
    format!("{package} {}", dependencies::version(package).unwrap_or("?"))
}
