//! The program. The library's documentation describes it.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    tower_refresh_sidecar::program::run()
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("sidecar: needs a system with Unix sockets");
    std::process::ExitCode::FAILURE
}
