//! Files that the sidecar creates, in a folder that others can write to.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{FileType, Mode, mknodat};

use crate::support::*;
use tower_refresh_sidecar::listen::{Listen, Listener};

/// X2.
#[tokio::test]
async fn lock_file_is_not_opened_through_a_link() {
    let folder = Folder::new();
    // A link to a file that is there, and one that would create a file.
    fs::write(folder.path("theirs"), "").unwrap();
    for target in ["theirs", "absent"] {
        symlink(folder.path(target), folder.path("socket.lock")).unwrap();
        let error = bind(&folder).await.err().unwrap();
        assert!(error.contains("socket.lock: "), "{error}");
        assert!(!folder.path("absent").exists() && !folder.path("socket").exists());
        fs::remove_file(folder.path("socket.lock")).unwrap();
    }
    assert!(bind(&folder).await.is_ok());
    let mode = fs::metadata(folder.path("socket.lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// X2.
#[tokio::test]
async fn lock_file_that_is_a_pipe_is_an_error() {
    let folder = Folder::new();
    let pipe = folder.path("socket.lock");
    mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let error = soon(bind(&folder)).await.err().unwrap();
    assert!(error.contains("socket.lock: "), "{error}");
}

/// X2.
#[tokio::test]
async fn link_to_a_folder_does_not_lose_a_file_in_it() {
    let folder = Folder::new();
    fs::create_dir(folder.path("theirs")).unwrap();
    fs::write(folder.path("theirs").join("s"), "precious").unwrap();
    symlink(folder.path("theirs"), folder.path("socket.new")).unwrap();
    assert!(bind(&folder).await.is_err());
    assert_eq!(fs::read_to_string(folder.path("theirs").join("s")).unwrap(), "precious");
}

async fn bind(folder: &Folder) -> Result<Listener, String> {
    let listen = Listen::Unix(folder.path("socket"));
    Listener::bind(&listen).await.map_err(|error| error.to_string())
}
