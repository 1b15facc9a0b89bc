//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tower_refresh::BoxError;

use crate::limits::raise_open_files;
use crate::listen::Listen;
use crate::serve::{Options, Sidecar};
use crate::status::complain;
use crate::{check, demo};

const USAGE: &str = "usage: tower-refresh-sidecar [--config FILE [--check [URL] | --listen unix:PATH | --listen tcp:127.0.0.1:PORT [--key-file FILE]]]";

#[tokio::main]
pub async fn run() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Demo) => demo::run().await,
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(())
        }
        Ok(Command::Check(options)) => check::run(options).await,
        Ok(Command::Serve(options)) => serve(options).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecar: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

pub enum Command {
    Demo,
    Help,
    Check(check::Options),
    Serve(Options),
}

/// `variable` reads an environment variable.
pub fn parse(
    arguments: impl Iterator<Item = String>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, BoxError> {
    let mut arguments = arguments.peekable();
    let (mut config, mut listen, mut key_file) = (None, None, None);
    let mut url_to_check = None;
    let mut any = false;
    while let Some(argument) = arguments.next() {
        any = true;
        if argument == "--check" {
            let url = arguments.next_if(|next| !next.starts_with("--"));
            if url_to_check.replace(url).is_some() {
                return Err(format!("{argument} is given twice").into());
            }
            continue;
        }
        let place = match &*argument {
            "--help" => return Ok(Command::Help),
            "--config" => &mut config,
            "--listen" => &mut listen,
            "--key-file" => &mut key_file,
            _ => return Err(USAGE.into()),
        };
        if place.is_some() {
            return Err(format!("{argument} is given twice").into());
        }
        *place = Some(arguments.next().ok_or(USAGE)?);
    }
    if !any {
        return Ok(Command::Demo);
    }
    let config = PathBuf::from(config.ok_or(USAGE)?);
    if let Some(url) = url_to_check {
        if listen.is_some() || key_file.is_some() {
            return Err("--check opens no socket: remove --listen and --key-file".into());
        }
        return Ok(Command::Check(check::Options { config, url }));
    }
    let listen = match listen {
        Some(listen) => Listen::parse(&listen)?,
        None => Listen::by_default(variable)?,
    };
    if key_file.is_some() && matches!(listen, Listen::Unix(_)) {
        return Err("--key-file: a Unix socket needs no key".into());
    }
    Ok(Command::Serve(Options { config, listen, key_file: key_file.map(Into::into) }))
}

async fn serve(options: Options) -> Result<(), BoxError> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Every caller takes two or three files, and the usual soft limit is 1,024.
    if let Err(error) = raise_open_files() {
        complain(&format_args!("cannot raise the limit of open files: {error}"));
    }
    let sidecar = Sidecar::open(options).await?;
    eprintln!("sidecar: curl {}", sidecar.curl);
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    sidecar.serve(stop).await
}
