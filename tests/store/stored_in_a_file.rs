//! Credentials over a file that can no longer be read.

use std::fs;
use std::path::PathBuf;

use http::Request;
use http_body_util::Full;
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::FileStore;
use tower_refresh::{Credentials, Event, OnUnavailable, TokenError};

use crate::folder::Folder;
use crate::world::{MINUTE, SECOND, URL, World, access, count};

#[tokio::test(start_paused = true)]
async fn unreadable_file_sends_nothing_and_is_left_unchanged() {
    let whole = {
        let (world, file) = (World::new(), File::new());
        worker(&world, &file, OnUnavailable::Fail).tokens().await.unwrap();
        fs::read(&file.path).unwrap()
    };
    let torn = &whole[..whole.len() / 2];
    for garbage in [b"", torn, b"sesame", br#"{"version": 9}"#] {
        for on_unavailable in [OnUnavailable::Fail, OnUnavailable::Continue] {
            let (world, file) = (World::new(), File::new());
            let credentials = worker(&world, &file, on_unavailable);
            let token = credentials.tokens().await.unwrap();
            let good = fs::read(&file.path).unwrap();

            fs::write(&file.path, garbage).unwrap();
            sleep(45 * SECOND).await;
            // Used while it works.
            assert_eq!(access(&credentials.tokens().await.unwrap()), access(&token));
            sleep(MINUTE).await;
            told(&credentials.tokens().await.unwrap_err(), &file);
            // A process that starts now does not send its configured token.
            let other = worker(&world, &file, on_unavailable);
            told(&other.tokens().await.unwrap_err(), &file);
            told(&other.log_in(world.server.issue()).await.unwrap_err(), &file);
            told(&other.flush().await.unwrap_err(), &file);
            drop(other);
            assert_eq!(fs::read(&file.path).unwrap(), garbage);
            assert_eq!(world.requests(), 1);

            // An operator restores the record.
            fs::write(&file.path, good).unwrap();
            sleep(10 * MINUTE).await;
            credentials.tokens().await.unwrap();
            assert_eq!((world.requests(), world.reuses()), (2, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_behind_a_corrupt_file_are_used_and_saved_later() {
    let (world, file) = (World::new(), File::new());
    // Corrupted while the refresh token is being spent. The intent is kept, to be restored.
    let kept = file.folder.path("kept");
    let endpoint = {
        let (server, path, kept) = (world.server.clone(), file.path.clone(), kept.clone());
        let client = tower::service_fn(move |request: Request<Full<bytes::Bytes>>| {
            fs::copy(&path, &kept).unwrap();
            fs::write(&path, "sesame").unwrap();
            server.token_service().oneshot(request)
        });
        TokenEndpoint::new(client, URL).unwrap().clock(world.clock.clone())
    };
    let grant = RefreshTokenGrant::new(endpoint, world.configured.clone());
    let builder = Credentials::builder(grant).store(FileStore::new(&file.path));
    let credentials = builder.policy(world.policy()).build();
    let mut events = credentials.subscribe();

    let token = credentials.tokens().await.unwrap();
    told(&credentials.flush().await.unwrap_err(), &file);
    let said: Vec<_> =
        std::iter::from_fn(|| futures_util::FutureExt::now_or_never(events.recv()).flatten())
            .collect();
    assert!(count(&said, |event| matches!(event, Event::Unsaved { .. })) > 0, "{said:?}");
    assert_eq!(fs::read(&file.path).unwrap(), b"sesame");

    fs::copy(&kept, &file.path).unwrap();
    credentials.flush().await.unwrap();
    let other = worker(&world, &file, OnUnavailable::Fail);
    assert_eq!(access(&other.tokens().await.unwrap()), access(&token));
    assert_eq!((world.requests(), world.reuses()), (1, 0));
}

fn worker(world: &World, file: &File, on_unavailable: OnUnavailable) -> Credentials {
    let builder = Credentials::builder(world.grant()).store(FileStore::new(&file.path));
    builder.policy(world.policy()).on_unavailable(on_unavailable).build()
}

/// The error is for an operator, and names the file and the remedy.
fn told(error: &TokenError, file: &File) {
    let said = error.to_string();
    assert!(error.is_misconfigured(), "{said}");
    assert!(said.contains(file.path.to_str().unwrap()) && said.contains("moved away"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

/// A file in a folder of its own.
struct File {
    folder: Folder,
    path: PathBuf,
}

impl File {
    fn new() -> Self {
        let folder = Folder::new();
        Self { path: folder.path("tokens.json"), folder }
    }
}
