#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::read::MAX_LENGTH;
use super::*;
use crate::Credentials;
use crate::source::testing::tokens;

/// A folder that is removed after the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-refresh-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join("token");
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

async fn fetch(path: impl Into<PathBuf>, renewal: Renewal) -> Result<String, TokenError> {
    let tokens = TokenFile::new(path).fetch(renewal).await?;
    Ok(tokens.access_token().expose_secret().to_owned())
}

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

#[tokio::test(start_paused = true)]
async fn token_is_trimmed_and_read_again_after_the_interval() {
    let folder = Folder::new();
    let path = folder.file(" \n sesame\r\n\n");
    let source = TokenFile::new(&path);
    let first = source.fetch(missing()).await.unwrap();
    assert_eq!(first.access_token().expose_secret(), "sesame");
    assert_eq!(first.refresh_in(), Some(Duration::from_secs(60)));
    assert!(first.expiry().is_none());

    folder.file("open");
    let source = source.reread_every(Duration::from_secs(5));
    let second = source.fetch(Renewal::new(Cause::Expiring)).await.unwrap();
    assert_eq!(second.access_token().expose_secret(), "open");
    assert_eq!(second.refresh_in(), Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn file_that_is_being_written_is_awaited() {
    for torn in ["", " \n", "ses"] {
        let folder = Folder::new();
        let path = folder.file(torn);
        let fetched = tokio::spawn(fetch(path, missing()));
        // In the middle of the first pause.
        tokio::time::sleep(BETWEEN_READINGS / 2).await;
        folder.file("sesame");
        assert_eq!(fetched.await.unwrap().unwrap(), "sesame", "{torn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn empty_file_is_a_transient_error_after_ten_readings() {
    let folder = Folder::new();
    let path = folder.file(" \n");
    let told = tokio::time::timeout(Duration::from_millis(100), fetch(&path, missing()));
    let error = told.await.unwrap().unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("is empty"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn file_that_changes_all_the_time_is_a_transient_error() {
    let folder = Folder::new();
    let path = folder.file("0");
    let mut fetched = tokio::spawn(fetch(path, missing()));
    tokio::time::sleep(BETWEEN_READINGS / 2).await;
    let mut written = 0;
    let told = loop {
        written += 1;
        folder.file(written.to_string());
        tokio::select! {
            told = &mut fetched => break told.unwrap(),
            () = tokio::time::sleep(BETWEEN_READINGS) => {}
        }
    };
    let error = told.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("changed at each of"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rejected_token_that_is_still_in_the_file_is_not_returned() {
    let folder = Folder::new();
    let path = folder.file("sesame\n");
    let rejected = || Renewal::new(Cause::Rejected).with_previous(tokens("sesame"));
    let error = fetch(&path, rejected()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("has not changed"), "{error}");

    let expiring = Renewal::new(Cause::Expiring).with_previous(tokens("sesame"));
    assert_eq!(fetch(&path, expiring).await.unwrap(), "sesame");

    folder.file("open");
    assert_eq!(fetch(&path, rejected()).await.unwrap(), "open");
}

#[tokio::test(start_paused = true)]
async fn error_names_the_file_and_does_not_show_its_content() {
    let folder = Folder::new();
    let fails = async |path: &Path, words: &str| {
        let error = fetch(path, missing()).await.unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(path.to_str().unwrap()), "{shown}");
        assert!(shown.contains(words) && !shown.contains("sesame"), "{shown}");
        error
    };
    let error = fails(&folder.0.join("nowhere"), "does not exist").await;
    assert!(error.is_transient());
    assert!(fails(&folder.0, "is a directory").await.is_misconfigured());
    let binary = folder.file(b"sesame\xff");
    assert!(fails(&binary, "is not text").await.is_misconfigured());
    let lines = folder.file("sesame\nsesame");
    assert!(fails(&lines, "several lines").await.is_misconfigured());
    let long = folder.file("sesame".repeat(MAX_LENGTH));
    assert!(fails(&long, "65536 bytes").await.is_misconfigured());
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn special_file_is_not_opened() {
    let error = fetch("/dev/null", missing()).await.unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn file_without_read_permission_is_misconfigured() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    let path = folder.file("sesame");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        // Root may read every file.
        return;
    }
    let error = fetch(&path, missing()).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("owner or mode"), "{error}");
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn links_of_a_projected_volume_are_followed() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    for (data, token) in [("1", "sesame"), ("2", "open")] {
        fs::create_dir(folder.0.join(data)).unwrap();
        fs::write(folder.0.join(data).join("api"), token).unwrap();
    }
    let link = |data: &str| {
        symlink(data, folder.0.join("next")).unwrap();
        fs::rename(folder.0.join("next"), folder.0.join("..data")).unwrap();
    };
    link("1");
    let path = folder.0.join("api");
    symlink("..data/api", &path).unwrap();
    assert_eq!(fetch(&path, missing()).await.unwrap(), "sesame");
    link("2");
    assert_eq!(fetch(&path, missing()).await.unwrap(), "open");
}

// ===== changes =====

/// The requests of a program that read the file, over one handle.
async fn token(credentials: &Credentials) -> Result<String, TokenError> {
    credentials.tokens().await.map(|tokens| tokens.access_token().expose_secret().to_owned())
}

/// A81
#[tokio::test(start_paused = true)]
async fn repaired_file_is_read_at_the_next_request() {
    let folder = Folder::new();
    let path = folder.0.join("token");
    let credentials = Credentials::new(TokenFile::new(&path));
    let broken: [(&str, &dyn Fn()); 4] = [
        ("does not exist", &|| drop(fs::remove_file(&path))),
        ("is empty", &|| drop(folder.file("\u{feff}\n"))),
        ("JSON", &|| drop(folder.file(r#"{"token": "sesame"}"#))),
        ("is a directory", &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }),
    ];
    for (words, spoil) in broken {
        spoil();
        credentials.log_out().await.unwrap();
        for _ in 0..3 {
            let error = token(&credentials).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        drop(fs::remove_dir(&path));
        folder.file("sesame");
        assert_eq!(token(&credentials).await.unwrap(), "sesame", "{words}");
    }
}

/// A81
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn broken_file_under_a_good_token_is_read_once_repaired() {
    let folder = Folder::new();
    let path = folder.file("sesame");
    let clock = crate::testing::ManualClock::new();
    let policy = crate::RefreshPolicy::default().clock(clock.clone());
    let credentials = Credentials::with_policy(TokenFile::new(&path), policy);
    assert_eq!(token(&credentials).await.unwrap(), "sesame");
    fs::write(&path, "{}").unwrap();
    clock.advance(REREAD_EVERY);
    // The good token stays in use.
    assert_eq!(token(&credentials).await.unwrap(), "sesame");
    credentials.flush().await.unwrap();
    assert!(credentials.status().error.unwrap().is_misconfigured());
    assert_eq!(token(&credentials).await.unwrap(), "sesame");

    fs::write(&path, "open").unwrap();
    token(&credentials).await.unwrap();
    credentials.flush().await.unwrap();
    assert_eq!(token(&credentials).await.unwrap(), "open");
}

/// A81
#[tokio::test(start_paused = true)]
async fn rejected_token_is_read_again_once_the_file_has_changed() {
    use tower::{Service as _, ServiceExt as _};

    let folder = Folder::new();
    let path = folder.file("sesame");
    let layer =
        crate::RefreshLayer::new(TokenFile::new(&path)).origin("https://api.example.com").unwrap();
    let mut client = tower::ServiceBuilder::new().layer(layer).service_fn(
        async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
            let is_good = request.headers()[http::header::AUTHORIZATION] == "Bearer open";
            let status = if is_good { 200 } else { 401 };
            let response = http::Response::builder().status(status);
            Ok::<_, crate::BoxError>(
                response.body(http_body_util::Full::<bytes::Bytes>::default())?,
            )
        },
    );
    let mut status = async || {
        let request = http::Request::get("https://api.example.com/").body(Default::default());
        let response = client.ready().await.unwrap().call(request.unwrap()).await;
        response.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        assert_eq!(status().await, 401);
    }
    fs::write(&path, "shut").unwrap();
    // The new token is rejected too, which starts a rejection backoff.
    assert_eq!(status().await, 401);
    fs::write(&path, "open").unwrap();
    assert_eq!(status().await, 200);
}

/// A81
#[tokio::test(start_paused = true)]
async fn unchanged_file_is_not_read_again_during_the_backoff() {
    let folder = Folder::new();
    let path = folder.file("{}");
    let credentials = Credentials::new(TokenFile::new(&path));
    let misconfigured = async || token(&credentials).await.unwrap_err().is_misconfigured();
    assert!(misconfigured().await);
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    // The new times are a change. There is no other after that.
    assert!(misconfigured().await);
    let mut events = credentials.subscribe();
    for _ in 0..100 {
        assert!(misconfigured().await);
    }
    assert!(futures_util::FutureExt::now_or_never(events.recv()).is_none());
}

/// A81
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn every_kind_of_change_of_the_file_is_noticed() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = Folder::new();
    let path = folder.file("null");
    let aged = |path: &Path| {
        let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    };
    aged(&path);
    let source = TokenFile::new(&path);
    let watch = source.info().watch.unwrap();
    let read = async || {
        source.fetch(missing()).await.unwrap_err();
        assert!(!watch.has_changed());
    };
    let other = folder.0.join("other");
    let changes: [&dyn Fn(); 6] = [
        // In place, with the same length and the same time of modification.
        &|| {
            fs::write(&path, "none").unwrap();
            aged(&path);
        },
        &|| {
            fs::write(&other, "null").unwrap();
            aged(&other);
            fs::rename(&other, &path).unwrap();
        },
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
        &|| fs::remove_file(&path).unwrap(),
        &|| {
            fs::write(&other, "null").unwrap();
            aged(&other);
            symlink("other", &path).unwrap();
        },
        &|| {
            let third = folder.0.join("third");
            fs::write(&third, "null").unwrap();
            aged(&third);
            fs::remove_file(&path).unwrap();
            symlink("third", &path).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        read().await;
        change();
        assert!(watch.has_changed(), "{number}");
    }
}

/// S16, for the file of a token.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn file_that_every_user_can_write_is_refused_unless_allowed() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    let path = folder.file("sesame");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = fetch(&path, missing()).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chmod o-w"), "{error}");
    let allowed = TokenFile::new(&path).allow_writable_by_everyone();
    assert!(allowed.fetch(missing()).await.is_ok());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    assert_eq!(fetch(&path, missing()).await.unwrap(), "sesame");
}
