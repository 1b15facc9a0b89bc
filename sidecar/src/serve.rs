//! The proxy from its configuration to its shutdown.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};
use tower_refresh::{BoxError, Refresh, RefreshLayer};

use crate::config::Config;
use crate::connections::Connections;
use crate::guard::{Guard, Key};
use crate::limits::Limits;
use crate::listen::{Listen, Listener, Stream};
use crate::proxy::{Body, Proxy};
use crate::status::complain;
use crate::{source, trust};

/// How much of the body of a request is kept for a retry, in bytes.
const REPLAY_BYTES: usize = 1024 * 1024;
/// The time limit of connecting to the API, including TLS. Responses have no limit, because callers set their own.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The size limit of the headers of a message over HTTP/2, in bytes. hyper's own limit, 16 KiB, is far below that of HTTP/1.1.
const HTTP2_HEADERS: u32 = 64 * 1024;
/// The time limit of responses in flight after the signal to end.
const GRACE: Duration = Duration::from_secs(10);

pub struct Options {
    pub config: PathBuf,
    pub listen: Listen,
    pub key_file: Option<PathBuf>,
}

/// A sidecar that listens and does not respond yet.
pub struct Sidecar {
    listener: Listener,
    proxy: Proxy<Refresh<Client<Connector, Body>>>,
    limits: Limits,
    key_file: Option<PathBuf>,
    /// The options of curl for a caller.
    pub curl: String,
}

impl Sidecar {
    pub async fn open(options: Options) -> Result<Self, BoxError> {
        let config = Config::read(&options.config)?;
        let origin = config.origin();
        let tls = trust::tls(config.ca_of(&options.config)?.as_deref())?;
        let connector = connector(HttpsConnectorBuilder::new().with_tls_config(tls));
        let is_http2_only = config.is_http2_only();
        let credentials = source::open(config, &options.config, connector.clone()).await?;
        let layer =
            RefreshLayer::new(credentials.clone()).origin(&origin)?.replay_limit(REPLAY_BYTES);
        let limits = Limits::of_this_process();
        let client = client(limits).http2_only(is_http2_only).build(connector);
        let client = ServiceBuilder::new().layer(layer).service(client);

        // Before a key is written: the file may have that of another sidecar, which listens there.
        let listener = Listener::bind(&options.listen).await?;
        let (guard, curl, key_file) = match &listener {
            Listener::Unix(socket, _) => {
                let curl = format!("--unix-socket {} http://localhost/", socket.path().display());
                (Guard::of_unix_socket(socket.path()), curl, None)
            }
            Listener::Tcp(tcp) => {
                let (address, key) = (tcp.local_addr()?, Key::random()?);
                let header = match &options.key_file {
                    Some(path) => {
                        key.write(path).map_err(|error| format!("{}: {error}", path.display()))?;
                        format!("@{}", path.display())
                    }
                    None => key.header(),
                };
                let curl = format!("-H '{header}' http://{address}/");
                (Guard::of_tcp(address, key), curl, options.key_file)
            }
        };
        let proxy = Proxy::new(client, &origin, guard, credentials)?;
        Ok(Self { listener, proxy, limits, key_file, curl })
    }

    /// Serves callers until `stop` resolves and the requests in flight have ended.
    ///
    /// # Errors
    ///
    /// The newest tokens could not be saved.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), BoxError> {
        let Self { listener, proxy, limits, key_file, .. } = self;
        let stop = async {
            stop.await;
            // Before the listener is dropped: afterwards the file may be that of the next sidecar.
            if let Some(path) = key_file {
                let _ = fs::remove_file(path);
            }
        };
        serve(listener, proxy, limits, stop).await
    }
}

/// Serves callers over HTTP/1.1 and HTTP/2 (with prior knowledge) until `stop` resolves and the requests in flight have ended.
///
/// # Errors
///
/// The newest tokens could not be saved.
pub async fn serve<C>(
    listener: Listener,
    proxy: Proxy<C>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError>
where
    C: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    // `limits` determine how long a head may take.
    http.http1().header_read_timeout(None);
    http.http2().max_header_list_size(HTTP2_HEADERS);
    let mut connections = Connections::new(limits);
    let mut stop = pin!(stop);
    loop {
        let admitted = async { (accept(&listener).await, connections.admit().await) };
        let (stream, admission) = tokio::select! {
            admitted = admitted => admitted,
            () = &mut stop => break,
        };
        let (proxy, caller) = (proxy.clone(), admission.caller.clone());
        let service = service_fn(move |request| proxy.clone().answer(request, caller.clone()));
        let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
        tokio::spawn(admission.serve(connection));
    }
    // From here on the next sidecar can listen there. Its first refresh waits for the last of this one.
    drop(listener);
    let _ = timeout(GRACE, connections.end()).await;
    let settled = proxy.credentials().flush().await;
    settled.map_err(|error| source::not_saved(&error).into())
}

/// Waits for the next connection. Errors are followed by pauses of up to a second: an aborted connection is harmless, but a lack
/// of file descriptors lasts until another one is closed.
async fn accept(listener: &Listener) -> Box<dyn Stream> {
    let mut pause = Duration::from_millis(10);
    loop {
        match listener.accept().await {
            Ok(stream) => return stream,
            Err(error) => complain(&format_args!("cannot accept a connection: {error}")),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

// ===== the way to the API =====

pub fn client(limits: Limits) -> legacy::Builder {
    let mut client = Client::builder(TokioExecutor::new());
    client.pool_timer(TokioTimer::new());
    client.pool_max_idle_per_host(limits.connections);
    client.http2_max_header_list_size(HTTP2_HEADERS);
    client
}

pub type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// Connects with HTTP/2 or HTTP/1.1 over TLS, within a time limit. `https` contains the trusted authorities.
pub fn connector(https: HttpsConnectorBuilder<WantsSchemes>) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let https = https.https_or_http().enable_http1().enable_http2().wrap_connector(tcp);
    BoxCloneSyncService::new(
        ServiceBuilder::new().layer(TimeoutLayer::new(CONNECT_TIME)).service(https),
    )
}
