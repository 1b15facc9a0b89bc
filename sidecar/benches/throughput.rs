//! Measures requests per second through the sidecar, and through the same proxy without the layer.
//!
//! `cargo bench -p tower-refresh-sidecar`. Needs `wrk`. Both proxies and an API that answers at once run in
//! this process, and are asked over loopback, by turns, so that what else the machine does meets both. Each figure is a
//! median; the difference is that of the pairs.

use std::convert::Infallible;
use std::process::Command;
use std::{env, fs};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tower::{Layer as _, Service};
use tower_refresh::{BoxError, Credentials, RefreshLayer, StaticToken};
use tower_refresh_sidecar::guard::{Guard, Key};
use tower_refresh_sidecar::limits::Limits;
use tower_refresh_sidecar::listen::{Listen, Listener};
use tower_refresh_sidecar::proxy::{Body, Proxy};
use tower_refresh_sidecar::{serve, trust};

const ROUNDS: usize = 15;
const SECONDS: u32 = 2;
const CONNECTIONS: u32 = 32;
/// The size of a request body, in bytes.
const BODY: usize = 4096;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // `cargo test --benches` does not want figures.
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let origin = api().await?;
    let connector =
        serve::connector(HttpsConnectorBuilder::new().with_tls_config(trust::tls(None)?));
    let http = || Client::builder(TokioExecutor::new()).build::<_, Body>(connector.clone());
    let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    let layer = RefreshLayer::new(credentials.clone()).origin(&origin)?;
    let with = start(layer.layer(http()), &origin, &credentials).await?;
    let without = start(http(), &origin, &credentials).await?;

    let post = env::temp_dir().join(format!("tower-refresh-bench-{}.lua", std::process::id()));
    fs::write(&post, format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {BODY})\n"))?;
    let script = post.display().to_string();
    let post_what = format!("POST, {BODY} bytes");
    for (what, script) in [("GET", None), (&*post_what, Some(script.as_str()))] {
        let (mut bare, mut layered, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (first, second) =
                if round % 2 == 0 { (&without, &with) } else { (&with, &without) };
            let (first, second) = (wrk(first, script).await?, wrk(second, script).await?);
            let (b, l) = if round % 2 == 0 { (first, second) } else { (second, first) };
            bare.push(b);
            layered.push(l);
            ratios.push(l / b);
        }
        println!(
            "{what:<20}{:>8.0} req/s without the layer{:>8.0} req/s with it{:>+8.1} %",
            median(bare),
            median(layered),
            (median(ratios) - 1.0) * 100.0
        );
    }
    fs::remove_file(post)?;
    Ok(())
}

/// A proxy to be asked over TCP: its URL, and the header with the key.
struct Place {
    url: String,
    key: String,
}

async fn start<C>(client: C, origin: &str, credentials: &Credentials) -> Result<Place, BoxError>
where
    C: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    let listener = Listener::bind(&Listen::parse("tcp:127.0.0.1:0")?).await?;
    let Listener::Tcp(tcp) = &listener else { return Err("not TCP".into()) };
    let (address, key) = (tcp.local_addr()?, Key::random()?);
    let place = Place { url: format!("http://{address}/"), key: key.header() };
    let proxy = Proxy::new(client, origin, Guard::of_tcp(address, key), credentials.clone())?;
    let limits = Limits::of_this_process();
    tokio::spawn(serve::serve(listener, proxy, limits, std::future::pending()));
    Ok(place)
}

/// Answers every request once its body is read.
async fn api() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let answer = service_fn(async |request: Request<Incoming>| {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"an answer"))))
            });
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(origin)
}

/// Runs `wrk` for a few seconds and returns the requests per second.
async fn wrk(place: &Place, script: Option<&str>) -> Result<f64, BoxError> {
    let mut command = Command::new("wrk");
    command.args(["-t1".to_owned(), format!("-c{CONNECTIONS}"), format!("-d{SECONDS}s")]);
    command.args(["-H", &place.key]);
    command.args(script.into_iter().flat_map(|script| ["-s", script]));
    command.arg(&place.url);
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.map_err(|error| format!("wrk: {error}"))?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        return Err(output.into());
    }
    let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(rate.ok_or("wrk printed no rate")?.trim().parse()?)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
