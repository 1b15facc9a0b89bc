//! Lends the token to programs that know nothing of tokens: a reverse proxy on this machine that attaches it.
//!
//! ```text
//! tower-refresh-sidecar --config FILE &
//! curl --unix-socket $XDG_RUNTIME_DIR/tower-refresh-sidecar.sock http://localhost/v1/me
//! ```
//!
//! curl, a shell script, a program in any language sends what it would send to the API, without a token, and gets what
//! the API answers. The sidecar gets tokens, renews them, sends rejected requests again, and keeps every token in a file
//! before it uses it. Bodies are streamed both ways. Callers may speak HTTP/1.1 or HTTP/2 (without TLS, with prior
//! knowledge); to the API it speaks HTTP/2 if TLS offers it, else HTTP/1.1. gRPC passes. Without arguments a demo runs
//! against the crate's own authorization server.
//!
//! # Use
//!
//! `--config FILE` is the configuration (`config.rs`). Of its `api` only the origin counts, which
//! is where everything goes: the paths are the callers'.
//!
//! `--listen unix:PATH` is where callers connect: `$XDG_RUNTIME_DIR/tower-refresh-sidecar.sock` by default, or
//! `~/.tower-refresh-sidecar.sock` where that is not set. What is left of a sidecar that died is replaced; one that lives
//! is not. The host is `localhost` there, or the percent-encoded path of the socket: a request for another one is refused,
//! since it would not get there. gRPC for C++, Python, Ruby and PHP sends the path as an authority that hyper refuses
//! (`Received RST_STREAM with error code 1`), and needs the option `grpc.default_authority`:
//!
//! ```text
//! grpc.insecure_channel("unix:/run/user/1000/tower-refresh-sidecar.sock", options=[("grpc.default_authority", "localhost")])
//! ```
//!
//! `--listen tcp:127.0.0.1:PORT` is for programs that cannot use a Unix socket; port 0 has the system choose. Each request
//! must then have the header `sidecar-key`, with a key that is made for the run and shown once. `--key-file FILE` writes
//! that header into a file that only this user can read, in place of showing it, so that it is in no list of processes:
//!
//! ```text
//! curl -H @FILE http://127.0.0.1:PORT/v1/me
//! ```
//!
//! `GET /-/status` tells in JSON how the token is, without showing it. It is the one path that does not go to the API.
//!
//! SIGINT or SIGTERM ends it: answers that are under way have 10 seconds. A refresh that is under way ends first, which
//! takes two minutes if the server says nothing: to kill it before leaves a refresh token of which nobody knows whether it
//! is spent, and the next one to use it says so. If the newest tokens could not be saved, it says so at its end, and fails.
//!
//! Any number of sidecars, each on a socket of its own, and of quickstarts can be given one configuration, and any number of
//! programs can use each of them: one of them renews the tokens, for all. The next sidecar may begin while the last has yet to
//! end.
//!
//! # Connections
//!
//! The soft limit of open files is raised to the hard limit. A third of the files that are left is for callers, and the rest
//! for the API. If there are more callers than that, they take turns: the next one is accepted when another connection ends,
//! and answers over HTTP/1.1 have `Connection: close` meanwhile.
//!
//! A connection is closed if it begins no request within 10 seconds, or none with the key over TCP. Between two requests it is
//! kept for 30 seconds. A request that is under way has no time limit. See `connections.rs`.
//!
//! `Upgrade` (WebSocket, for example) and `CONNECT` are refused with status 501. An offer of `h2c`, which Java's HTTP client and
//! `curl --http2` make by default, is ignored: the connection stays HTTP/1.1. HTTP/2 works with prior knowledge.
//!
//! # Whose answer is it?
//!
//! What the sidecar answers in place of the API has the header `sidecar-error` (`answer.rs` lists them), and no answer of
//! the API has: a 401 without it is the API's, which means that a renewed token was rejected too, that there was none, or
//! that more of the body was sent by then than is kept to be sent again (1 MiB). Requests that are not valid HTTP, or that
//! have more than 100 header lines (HTTP/2: 64 KiB of them), are the exception: the answer, 400, 414 or 431 without a body, is the
//! sidecar's.
//!
//! A redirect is the caller's: one to another place in full leads past the sidecar.
//!
//! # What it protects from, and what not
//!
//! The token is worth what it can do, and so is a way to have it attached. It is not lent to
//!
//! - other users of the machine: the socket's mode is 0600, from the moment that it is there; over TCP they lack the key;
//! - pages in a browser, over TCP, whatever their name resolves to: see `guard.rs`;
//! - the network: it listens on loopback only;
//! - other hosts: where a request goes is the configuration's to say, `Host` and absolute targets elsewhere are refused,
//!   and whatever `Authorization` and `Cookie` a caller sends stay here: see `headers.rs`.
//!
//! Nobody gets to see the token. But other processes *of the same user* can connect to the socket or read the key's file,
//! as they can read the configuration: they can use the token while the sidecar runs. So can root.
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "the parts of a program, not an interface; its clock is the real one"
)]

#[cfg(unix)]
#[doc(hidden)]
pub mod answer;
#[cfg(unix)]
#[doc(hidden)]
pub mod check;
#[cfg(unix)]
#[doc(hidden)]
pub mod config;
#[cfg(unix)]
#[doc(hidden)]
pub mod connections;
#[cfg(unix)]
#[doc(hidden)]
pub mod demo;
#[cfg(unix)]
#[doc(hidden)]
pub mod guard;
#[cfg(unix)]
#[doc(hidden)]
pub mod headers;
#[cfg(unix)]
#[doc(hidden)]
pub mod limits;
#[cfg(unix)]
#[doc(hidden)]
pub mod listen;
#[cfg(unix)]
#[doc(hidden)]
pub mod program;
#[cfg(unix)]
#[doc(hidden)]
pub mod proxy;
#[cfg(unix)]
#[doc(hidden)]
pub mod serve;
#[cfg(unix)]
#[doc(hidden)]
pub mod source;
#[cfg(unix)]
#[doc(hidden)]
pub mod status;
#[cfg(unix)]
#[doc(hidden)]
pub mod trust;
