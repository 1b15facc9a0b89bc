//! The browsers of the users, the faults, and the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Fault};
use tower_refresh::{BoxError, CredentialsPool, Event, PoolEvents};

use crate::backend::User;

pub const USERS: usize = 50;
pub const PASSWORD: &str = "correct horse battery staple";

/// Requests of each user at once.
const REQUESTS: usize = 4;

pub fn name(user: usize) -> String {
    format!("user-{user}")
}

pub async fn run(
    server: &AuthorizationServer,
    origin: &str,
    pool: &CredentialsPool<User>,
) -> Result<Shown, BoxError> {
    let mut events = pool.subscribe();
    let mut figures = Figures::default();
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut browsers: Vec<_> = (0..USERS)
        .map(|user| Browser { http: http.clone(), origin: origin.into(), user, cookie: None })
        .collect();

    // ===== all users log in =====
    let log_ins = browsers.iter_mut().map(|browser| browser.log_in(PASSWORD));
    let statuses: Vec<_> = stream::iter(log_ins).buffer_unordered(8).collect().await;
    let logged_in = statuses.into_iter().filter(|it| matches!(it, Ok(StatusCode::NO_CONTENT)));
    figures.check_equal("users that logged in", logged_in.count(), USERS);
    let mut stranger = Browser { user: 7, cookie: None, ..browsers[0].clone() };
    let refused = stranger.log_in("guessed").await? == StatusCode::UNAUTHORIZED;
    figures.promise(refused, "a wrong password is no log-in");
    let without = stranger.mail().await?.status;
    figures.promise(without == StatusCode::UNAUTHORIZED, "a request without a session is refused");

    // Each user's own mail, from here on.
    let mut owners = all_succeed(&browsers).await?;
    let different: BTreeSet<_> = owners.iter().collect();
    figures.check_equal("users that see mail of their own", different.len(), USERS);

    // ===== all access tokens are revoked =====
    refreshes(&mut events);
    let before = server.counters();
    server.token_faults().always(Fault::normal().delay(Duration::from_millis(50)));
    server.revoke_all_access_tokens();
    let same = all_succeed(&browsers).await? == owners;
    figures.promise(same, "each user sees the same mail after a refresh");
    let after = server.counters();
    let refreshed = refreshes(&mut events);
    figures.check_equal("users whose token was refreshed", refreshed.len(), USERS);
    figures.promise(refreshed.values().all(|times| *times == 1), "one refresh for each user");
    let requests = after.refresh_token_requests - before.refresh_token_requests;
    figures.check_equal("token requests for that", count(requests), USERS);

    // ===== the token endpoint is down, and all access tokens are revoked =====
    server.token_faults().clear();
    server.token_faults().always(Fault::unavailable().retry_after(Duration::from_secs(1)));
    server.revoke_all_access_tokens();
    let down = each(&browsers, Browser::mail).await?;
    let unavailable = down.iter().filter(|it| it.status == StatusCode::SERVICE_UNAVAILABLE);
    figures.check_equal("requests answered with 503 in the outage", unavailable.count(), USERS);
    let asked = count(server.counters().token_requests_faulted);
    figures.check("token requests in the outage", asked, (1..=8).contains(&asked));
    let health = browsers[0].get("/health").await?;
    println!("/health: {}", String::from_utf8_lossy(&health.body));

    server.token_faults().clear();
    let same = each(&browsers, Browser::mail_after_outage).await? == owners;
    figures.promise(same, "each user sees the same mail after the outage");

    // ===== one user logs out =====
    let tokens = pool.get(&User(name(0).into()))?.current().ok_or("broken: no tokens")?;
    let left = browsers.remove(0);
    owners.remove(0);
    let status = left.post("/logout", String::new()).await?.status;
    figures.promise(status == StatusCode::NO_CONTENT, "a user can log out");
    let refresh_token = tokens.refresh_token().map(|token| token.expose_secret());
    let is_revoked = !server.is_live(tokens.access_token().expose_secret())
        && !refresh_token.is_some_and(|token| server.is_unspent(token));
    figures.promise(is_revoked, "the tokens of a user who logs out are revoked");
    let status = left.mail().await?.status;
    figures.promise(status == StatusCode::UNAUTHORIZED, "a cookie ends with its session");
    let same = all_succeed(&browsers).await? == owners;
    figures.promise(same, "the log-out of one user ends no other session");

    // ===== one user's refresh token is revoked at the server =====
    let tokens = pool.get(&User(name(1).into()))?.current().ok_or("broken: no tokens")?;
    let refresh_token = tokens.refresh_token().ok_or("broken: no refresh token")?;
    server.revoke_refresh_token(refresh_token.expose_secret());
    let responses = each(&browsers, Browser::mail).await?;
    let must_log_in: Vec<_> = responses
        .iter()
        .zip(&browsers)
        .filter(|(response, _)| response.status == StatusCode::UNAUTHORIZED)
        .map(|(_, browser)| browser.user)
        .collect();
    figures
        .promise(must_log_in == [1], "only the user without a session at the server logs in again");
    let denied = pool.pool_status().denied;
    figures.check_equal("users that must log in, in the pool's status", denied, 1);
    let again = browsers[0].log_in(PASSWORD).await? == StatusCode::NO_CONTENT;
    let new = browsers[0].mail().await?;
    figures.promise(
        again && new.status == StatusCode::OK && !owners.contains(&new.body),
        "after a new log-in, requests succeed",
    );
    owners[0] = new.body;

    let counters = server.counters();
    let reuses = count(counters.refresh_token_reuses + counters.families_revoked);
    figures.check_equal("refresh tokens that were sent twice", reuses, 0);
    let at_once = count(counters.max_concurrent_token_requests);
    figures.check("token requests in flight at once", at_once, at_once <= 8);
    Ok(Shown { browsers, owners, figures })
}

/// The browsers that are still logged in, whose mail each has seen, and the figures.
pub struct Shown {
    browsers: Vec<Browser>,
    owners: Vec<Bytes>,
    figures: Figures,
}

impl Shown {
    /// Continues after the backend was started again, with the same storage.
    pub async fn after_a_restart(&mut self, origin: &str) -> Result<(), BoxError> {
        self.browsers.iter_mut().for_each(|browser| browser.origin = origin.into());
        let same = all_succeed(&self.browsers).await? == self.owners;
        self.figures.promise(same, "each user sees the same mail after a restart");
        self.figures.check_equal("sessions that survived a restart", self.owners.len(), USERS - 1);
        Ok(())
    }

    pub fn report(self) -> Result<(), BoxError> {
        self.figures.report()
    }
}

/// Sends several requests for each user at once, and returns whose mail each user has seen.
async fn all_succeed(browsers: &[Browser]) -> Result<Vec<Bytes>, BoxError> {
    let mut seen = each(browsers, async |browser| {
        let requests = (0..REQUESTS).map(|_| browser.mail());
        futures_util::future::try_join_all(requests).await
    })
    .await?;
    seen.iter_mut()
        .map(|responses| {
            let first = responses.swap_remove(0);
            let alike = responses.iter().all(|response| *response == first);
            if first.status != StatusCode::OK || !alike {
                return Err(format!("broken: {first:?} and {responses:?}").into());
            }
            Ok(first.body)
        })
        .collect()
}

/// Runs a function for all browsers at once.
async fn each<'a, T>(
    browsers: &'a [Browser],
    run: impl AsyncFn(&'a Browser) -> Result<T, BoxError>,
) -> Result<Vec<T>, BoxError> {
    futures_util::future::try_join_all(browsers.iter().map(|browser| run(browser))).await
}

/// Returns the number of refreshes of each user since the last call.
fn refreshes(events: &mut PoolEvents) -> BTreeMap<String, usize> {
    let mut refreshes = BTreeMap::new();
    while let Some(Some(event)) = events.recv().now_or_never() {
        if matches!(event.event, Event::Refreshed { .. }) {
            *refreshes.entry(event.key.to_string()).or_default() += 1;
        }
    }
    refreshes
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

// ===== a browser =====

#[derive(Clone)]
struct Browser {
    http: Client<HttpConnector, Full<Bytes>>,
    origin: String,
    user: usize,
    cookie: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Page {
    status: StatusCode,
    cookie: Option<String>,
    retry_after: Duration,
    body: Bytes,
}

impl Browser {
    async fn log_in(&mut self, password: &str) -> Result<StatusCode, BoxError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("user", &name(self.user))
            .append_pair("password", password)
            .finish();
        let page = self.post("/login", form).await?;
        self.cookie = page.cookie;
        Ok(page.status)
    }

    async fn mail(&self) -> Result<Page, BoxError> {
        self.get("/mail").await
    }

    /// Reloads the page for as long as the backend asks for it.
    async fn mail_after_outage(&self) -> Result<Bytes, BoxError> {
        for _ in 0..20 {
            let page = self.mail().await?;
            match page.status {
                StatusCode::OK => return Ok(page.body),
                StatusCode::SERVICE_UNAVAILABLE => sleep(page.retry_after).await,
                status => return Err(format!("broken: {status} after the outage").into()),
            }
        }
        Err("broken: the outage does not end".into())
    }

    async fn get(&self, path: &str) -> Result<Page, BoxError> {
        self.send(Request::get(format!("{}{path}", self.origin)), String::new()).await
    }

    async fn post(&self, path: &str, form: String) -> Result<Page, BoxError> {
        self.send(Request::post(format!("{}{path}", self.origin)), form).await
    }

    async fn send(
        &self,
        mut request: http::request::Builder,
        form: String,
    ) -> Result<Page, BoxError> {
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let response = self.http.request(request.body(form.into())?).await?;
        let (head, body) = response.into_parts();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let cookie = text(header::SET_COOKIE).and_then(|cookie| cookie.split(';').next());
        let seconds = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        Ok(Page {
            status: head.status,
            cookie: cookie.map(str::to_owned),
            retry_after: Duration::from_secs(seconds.unwrap_or(1)),
            body: body.collect().await?.to_bytes(),
        })
    }
}

// ===== the result =====

/// The figures, and the promises that were broken.
#[derive(Default)]
struct Figures {
    rows: Vec<(&'static str, usize)>,
    broken: Vec<&'static str>,
}

impl Figures {
    fn check_equal(&mut self, what: &'static str, figure: usize, expected: usize) {
        self.check(what, figure, figure == expected);
    }

    fn check(&mut self, what: &'static str, figure: usize, holds: bool) {
        self.rows.push((what, figure));
        self.promise(holds, what);
    }

    fn promise(&mut self, holds: bool, what: &'static str) {
        if !holds {
            self.broken.push(what);
        }
    }

    fn report(self) -> Result<(), BoxError> {
        for (what, figure) in self.rows {
            println!("{what:<48}{figure:>6}");
        }
        if !self.broken.is_empty() {
            return Err(format!("broken: {}", self.broken.join(", ")).into());
        }
        println!("every check passed");
        Ok(())
    }
}
