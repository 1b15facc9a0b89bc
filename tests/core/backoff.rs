//! The backoff after a failed refresh, and the errors that requests get during it.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{
    BoxError, BoxTokenSource, Credentials, Event, Renewal, SourceInfo, TokenError, TokenFile,
    TokenSet, TokenSource, source_fn,
};

use crate::folder::Folder;
use crate::harness::{HOUR, MINUTE, let_others_run, policy, puppet, tokens};

const TICK: Duration = Duration::from_millis(100);

/// A source that fails until it is repaired, and counts its calls.
struct Failing {
    error: TokenError,
    is_repaired: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    info: SourceInfo,
}

impl Failing {
    fn new(error: TokenError) -> Self {
        Self { error, is_repaired: Arc::default(), calls: Arc::default(), info: SourceInfo::new() }
    }

    fn fresh_proof(mut self) -> Self {
        self.info = self.info.fresh_proof(true);
        self
    }
}

impl TokenSource for Failing {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.is_repaired.load(Ordering::SeqCst) {
            true => Ok(tokens("t").with_expires_in(HOUR)),
            false => Err(self.error.clone()),
        }
    }

    fn info(&self) -> SourceInfo {
        self.info.clone()
    }
}

/// Asks every 100 ms until there is a token. Returns how long that took.
async fn time_to_token(credentials: &Credentials) -> Duration {
    let start = Instant::now();
    while credentials.tokens().await.is_err() {
        advance(TICK).await;
    }
    start.elapsed()
}

// ===== outages =====

/// The error of an outage, and the longest pause while requests need a token.
fn outages() -> [(TokenError, Duration); 2] {
    [
        (TokenError::unsent("no route"), Duration::from_secs(1)),
        (TokenError::transient("503"), Duration::from_secs(5)),
    ]
}

/// S5
#[tokio::test(start_paused = true)]
async fn first_token_after_an_outage_comes_within_the_short_backoff() {
    for (error, longest) in outages() {
        for outage in [Duration::from_secs(3), 30 * MINUTE] {
            let source = Failing::new(error.clone());
            let is_repaired = Arc::clone(&source.is_repaired);
            let credentials = Credentials::with_policy(source, policy());
            let start = Instant::now();
            while start.elapsed() < outage {
                credentials.tokens().await.unwrap_err();
                assert!(credentials.status().backoff.unwrap() <= longest);
                advance(TICK).await;
            }
            is_repaired.store(true, Ordering::SeqCst);
            assert!(time_to_token(&credentials).await <= longest);
        }
    }
}

/// A denied grant is not sent again when only the outage of its fallback ends.
#[tokio::test(start_paused = true)]
async fn outage_of_a_fallback_ends_within_the_short_backoff() {
    let unreachable = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<Full<Bytes>>, BoxError>("no route".into())
    });
    let endpoint = TokenEndpoint::new(unreachable, "https://as.example.com/token").unwrap();
    let log_in = Failing::new(TokenError::unsent("no route").with_code("busy"));
    let is_repaired = Arc::clone(&log_in.is_repaired);
    let grant = RefreshTokenGrant::new(endpoint, "");
    let credentials = Credentials::with_policy(grant.or_else(log_in), policy());
    let start = Instant::now();
    while start.elapsed() < 30 * MINUTE {
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_transient() && error.code() == Some("busy"), "{error}");
        advance(TICK).await;
    }
    is_repaired.store(true, Ordering::SeqCst);
    assert!(time_to_token(&credentials).await <= Duration::from_secs(1));
}

/// A81: the input of a source that was not asked has not failed, so that its change ends no backoff.
#[tokio::test(start_paused = true)]
async fn unread_token_file_ends_no_backoff_of_its_predecessor() {
    let folder = Folder::new();
    for error in [TokenError::unsent("no route"), TokenError::ambiguous("cut")] {
        for is_fresh in [false, true] {
            let mut first = Failing::new(error.clone());
            if is_fresh {
                first = first.fresh_proof();
            }
            let calls = Arc::clone(&first.calls);
            let file = TokenFile::new(folder.path("missing"));
            let credentials = Credentials::with_policy(first.or_else(file), policy());
            for _ in 0..100 {
                credentials.tokens().await.unwrap_err();
            }
            assert_eq!(calls.load(Ordering::SeqCst), 1, "{error} {is_fresh}");
        }
    }
}

/// A81: also if the file was read before, and has changed since.
#[tokio::test(start_paused = true)]
async fn changed_token_file_ends_no_backoff_of_its_predecessor() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let first = FreshProof(move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => TokenError::denied("gone"),
        _ => TokenError::ambiguous("cut"),
    });
    let folder = Folder::new();
    let file = folder.path("token");
    std::fs::write(&file, "{}").unwrap();
    let source = first.or_else(TokenFile::new(&file));
    let credentials = Credentials::with_policy(source, policy());
    assert!(credentials.tokens().await.unwrap_err().is_misconfigured());
    std::fs::write(&file, "{ }").unwrap();
    for _ in 0..100 {
        credentials.tokens().await.unwrap_err();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A source that makes a fresh proof, and fails with the error that a closure returns.
struct FreshProof<F>(F);

impl<F: Fn() -> TokenError + Send + Sync + 'static> TokenSource for FreshProof<F> {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        Err((self.0)())
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new().fresh_proof(true)
    }
}

/// The backoff grew behind a token that worked, and then that expired.
#[tokio::test(start_paused = true)]
async fn long_backoff_behind_a_token_ends_when_the_token_expires() {
    for (error, longest) in outages() {
        let source = Failing::new(error);
        let (is_repaired, calls) = (Arc::clone(&source.is_repaired), Arc::clone(&source.calls));
        let policy = policy().backoff(Duration::from_secs(1), 10 * MINUTE);
        let credentials = Credentials::with_policy(source, policy);
        credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
        advance(55 * MINUTE).await;
        for _ in 0..289 {
            credentials.tokens().await.unwrap();
            credentials.flush().await.unwrap();
            advance(Duration::from_secs(1)).await;
        }
        // While the token works, the backoff doubles as usual.
        assert!(calls.load(Ordering::SeqCst) < 12, "{calls:?}");
        is_repaired.store(true, Ordering::SeqCst);
        let backoff = credentials.status().backoff.unwrap();
        assert!(backoff <= Duration::from_secs(1) + longest, "{backoff:?}");
        advance(Duration::from_secs(1)).await;
        assert!(time_to_token(&credentials).await <= longest);
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_that_the_server_asked_for_is_kept_during_an_outage() {
    for (asked_for, kept) in [(30, 30), (1800, 1800), (86400, 3600)] {
        let retry_after = Duration::from_secs(asked_for);
        let source = Failing::new(TokenError::transient("busy").with_retry_after(retry_after));
        let calls = Arc::clone(&source.calls);
        let credentials = Credentials::with_policy(source, policy());
        credentials.tokens().await.unwrap_err();
        let kept = Duration::from_secs(kept);
        assert_eq!(credentials.status().backoff, Some(kept));
        advance(kept - TICK).await;
        credentials.tokens().await.unwrap_err();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        advance(TICK).await;
        credentials.tokens().await.unwrap_err();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}

/// An ambiguous error is not an outage: each attempt may have been processed.
#[tokio::test(start_paused = true)]
async fn backoff_after_unknown_outcomes_still_grows() {
    let source = Failing::new(TokenError::ambiguous("cut"));
    let calls = Arc::clone(&source.calls);
    let credentials = Credentials::with_policy(source, policy());
    for _ in 0..600 {
        credentials.tokens().await.unwrap_err();
        advance(Duration::from_secs(1)).await;
    }
    assert!(calls.load(Ordering::SeqCst) < 25, "{calls:?}");
}

// ===== denials of a fresh proof =====

/// A80
#[tokio::test(start_paused = true)]
async fn denied_fresh_proof_is_resent_in_five_minutes_or_on_demand() {
    let denied = || TokenError::denied("the clock is not set yet").with_code("invalid_grant");
    let sources: [fn(Failing) -> BoxTokenSource; 3] = [
        TokenSource::boxed,
        |it| it.or_else(Failing::new(TokenError::denied("b")).fresh_proof()).boxed(),
        |it| Failing::new(TokenError::denied("a")).fresh_proof().or_else(it).boxed(),
    ];
    for source in sources {
        let failing = Failing::new(denied()).fresh_proof();
        let (is_repaired, calls) = (Arc::clone(&failing.is_repaired), Arc::clone(&failing.calls));
        let credentials = Credentials::with_policy(source(failing), policy());
        let mut events = credentials.subscribe();
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_denied() && !error.is_remembered(), "{error}");
        assert_eq!(error.asked_again_in(), Some(5 * MINUTE));
        advance(MINUTE).await;
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_remembered() && error.is_denied(), "{error}");
        assert_eq!(error.asked_again_in(), Some(4 * MINUTE));
        assert!(error.to_string().contains("is asked again in 240s"));
        assert_eq!(calls.load(Ordering::SeqCst), 1);

        credentials.refresh().await.unwrap_err();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        is_repaired.store(true, Ordering::SeqCst);
        advance(5 * MINUTE - TICK).await;
        credentials.tokens().await.unwrap_err();
        advance(TICK).await;
        credentials.tokens().await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        let mut retries = Vec::new();
        while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.recv()) {
            if let Event::RefreshFailed { retry_in, .. } = event {
                retries.push(retry_in);
            }
        }
        assert_eq!(retries, [Some(5 * MINUTE); 2]);
    }
}

/// A80: a final denial is not asked again, nor is a fixed password beside a fresh proof.
#[tokio::test(start_paused = true)]
async fn refused_grant_without_a_fresh_proof_is_not_sent_again() {
    let denied = || Failing::new(TokenError::denied("a"));
    let password = denied();
    let calls = Arc::clone(&password.calls);
    let sources = [
        denied().boxed(),
        source_fn(|_| async { Err(TokenError::denied("a closure")) }).boxed(),
        password.or_else(denied().fresh_proof()).boxed(),
        denied().fresh_proof().or_else(denied()).boxed(),
    ];
    for source in sources {
        let credentials = Credentials::with_policy(source, policy());
        credentials.tokens().await.unwrap_err();
        for _ in 0..10 {
            advance(HOUR).await;
            let error = credentials.tokens().await.unwrap_err();
            assert!(error.is_remembered() && error.asked_again_in().is_none());
            assert!(error.to_string().contains("before the credentials change"), "{error}");
            assert!(credentials.refresh().await.unwrap_err().is_remembered());
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// A81
#[tokio::test(start_paused = true)]
async fn misconfigured_source_is_asked_at_once_by_refresh() {
    let source = Failing::new(TokenError::misconfigured("no such client"));
    let (is_repaired, calls) = (Arc::clone(&source.is_repaired), Arc::clone(&source.calls));
    let credentials = Credentials::with_policy(source, policy());
    let error = credentials.tokens().await.unwrap_err();
    assert!(error.to_string().contains("is asked again in 300s"), "{error}");
    credentials.tokens().await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    is_repaired.store(true, Ordering::SeqCst);
    credentials.refresh().await.unwrap();
    credentials.tokens().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A31: the codes of OpenID Connect for interaction with the user, since conditional access changes.
#[tokio::test(start_paused = true)]
async fn conditional_denials_are_tried_again_after_five_minutes() {
    for code in
        ["interaction_required", "login_required", "consent_required", "account_selection_required"]
    {
        let source = Failing::new(TokenError::denied("not yet").with_code(code));
        let calls = Arc::clone(&source.calls);
        let credentials = Credentials::with_policy(source, policy());
        for _ in 0..60 {
            credentials.tokens().await.unwrap_err();
            advance(MINUTE).await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 12, "{code}");
    }
}

// ===== remembered errors =====

/// N9
#[tokio::test(start_paused = true)]
async fn remembered_error_is_marked_and_keeps_the_original_cause() {
    let cause = std::io::Error::other("connection reset");
    let error = TokenError::transient(Chain(cause))
        .with_code("slow_down")
        .with_description("later")
        .with_retry_after(Duration::from_secs(30));
    let credentials = Credentials::with_policy(Failing::new(error.clone()), policy());
    let first = credentials.tokens().await.unwrap_err();
    assert!(!first.is_remembered());
    assert_eq!(first.to_string(), error.to_string());

    advance(Duration::from_secs(10)).await;
    let remembered = credentials.tokens().await.unwrap_err();
    assert!(remembered.is_remembered() && remembered.is_transient());
    assert_eq!(remembered.asked_again_in(), Some(Duration::from_secs(20)));
    assert_eq!(credentials.status().backoff, Some(Duration::from_secs(20)));
    assert_eq!(
        remembered.to_string(),
        format!("{error}; remembered: the token source is asked again in 20s")
    );
    assert_eq!(remembered.code(), error.code());
    assert_eq!(remembered.description(), error.description());
    assert_eq!(remembered.retry_after(), error.retry_after());
    assert!(remembered.get_ref().is::<Chain>());
    assert_eq!(remembered.source().unwrap().to_string(), "connection reset");
}

#[derive(Debug)]
struct Chain(std::io::Error);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not reached")
    }
}

impl Error for Chain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// N9: an error that the source got from other credentials, which remember it, is a new failure here.
#[tokio::test(start_paused = true)]
async fn error_that_other_credentials_remember_is_not_remembered_here() {
    let others = Credentials::with_policy(Failing::new(TokenError::transient("a")), policy());
    others.tokens().await.unwrap_err();
    let asked = others.clone();
    let source = source_fn(move |_| {
        let asked = asked.clone();
        async move { asked.tokens().await }
    });
    let credentials = Credentials::with_policy(source, policy());
    let error = credentials.tokens().await.unwrap_err();
    assert!(!error.is_remembered() && error.asked_again_in().is_none(), "{error}");
    let error = credentials.tokens().await.unwrap_err();
    assert!(error.is_remembered());
    assert_eq!(error.to_string().matches("asked again").count(), 1, "{error}");
}

/// N9: after an unknown outcome the refresh token is not sent while the access token works.
#[tokio::test(start_paused = true)]
async fn backoff_after_an_unknown_outcome_lasts_until_the_expiry() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let mut events = credentials.subscribe();
    advance(HOUR - 5 * MINUTE).await;
    credentials.tokens().await.unwrap();
    strings.next().await.fail(TokenError::ambiguous("cut"));
    credentials.flush().await.unwrap();

    let left = 5 * MINUTE - Duration::from_secs(10);
    assert_eq!(credentials.status().backoff, Some(left));
    let retry_in = loop {
        if let Event::RefreshFailed { retry_in, .. } = events.recv().await.unwrap() {
            break retry_in;
        }
    };
    assert_eq!(retry_in, Some(left));
    let error = credentials.refresh().await.unwrap_err();
    assert_eq!(error.asked_again_in(), Some(left));
    assert!(error.is_ambiguous() && error.is_remembered());
    advance(left).await;
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("new"));
    let_others_run().await;
    assert_ready!(waiting.poll()).unwrap();
}

// ===== a process that was stopped =====

/// S1: the timer is due when the process continues, while the response is still passing through other tasks.
#[tokio::test(start_paused = true)]
async fn waiter_that_wakes_after_a_stop_gets_the_answer() {
    for hops in [0, 1, 5, 20] {
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let answered = Arc::new(tokio::sync::Mutex::new(Some(answered)));
        let source = source_fn(move |_| {
            let answered = Arc::clone(&answered);
            async move {
                answered.lock().await.take().unwrap().await.unwrap();
                for _ in 0..hops {
                    tokio::spawn(std::future::ready(())).await.unwrap();
                }
                Ok(tokens("t"))
            }
        });
        let credentials = Credentials::with_policy(source, policy());
        let waiting = tokio::spawn({
            let credentials = credentials.clone();
            async move { credentials.tokens().await }
        });
        let_others_run().await;
        // Stopped for a minute; the waiter runs first.
        advance(MINUTE).await;
        answer.send(()).unwrap();
        waiting.await.unwrap().unwrap();
    }
}

/// S1: a stop for longer than ten timeouts. Requests that arrive before the response is read send no other.
#[tokio::test(start_paused = true)]
async fn refresh_that_was_stopped_for_an_hour_is_not_started_again() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;
    advance(HOUR).await;
    let mut later = task::spawn(credentials.tokens());
    assert_pending!(later.poll());
    let_others_run().await;
    assert_eq!(strings.count(), 0);
    flight.answer(tokens("t"));
    let_others_run().await;
    for waiter in [&mut waiting, &mut later] {
        assert_eq!(assert_ready!(waiter.poll()).unwrap().access_token().expose_secret(), "t");
    }
}

/// S1: the wait after a stop is bounded.
#[tokio::test(start_paused = true)]
async fn waiter_that_wakes_after_a_stop_gives_up_if_no_answer_comes() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let waiting = tokio::spawn(async move { credentials.tokens().await });
    let _hung = strings.next().await;
    advance(HOUR).await;
    let start = Instant::now();
    assert!(waiting.await.unwrap().unwrap_err().is_transient());
    assert!(start.elapsed() <= Duration::from_secs(31), "{:?}", start.elapsed());
}
