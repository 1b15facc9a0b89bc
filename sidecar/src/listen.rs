//! The socket to which callers connect.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, open, unlinkat};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tower_refresh::BoxError;

/// The value of `--listen`.
#[derive(Clone, Debug, PartialEq)]
pub enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Listen {
    pub fn parse(text: &str) -> Result<Self, BoxError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address =
            text.strip_prefix("tcp:").and_then(|address| address.parse::<SocketAddr>().ok());
        match address {
            Some(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            Some(address) => Err(format!(
                "--listen: {address} is not a loopback address; other machines could use the token"
            )
            .into()),
            None => Err("--listen: must be unix:PATH or tcp:127.0.0.1:PORT".into()),
        }
    }

    /// Returns the default address: a socket in the user's runtime folder, or else in the home folder. `variable` reads an
    /// environment variable.
    pub fn by_default(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, BoxError> {
        let folder = |name| variable(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let path = folder("XDG_RUNTIME_DIR")
            .map(|folder| folder.join("tower-refresh-sidecar.sock"))
            .or_else(|| Some(folder("HOME")?.join(".tower-refresh-sidecar.sock")));
        path.map(Self::Unix)
            .ok_or_else(|| "neither XDG_RUNTIME_DIR nor HOME is set: add --listen".into())
    }
}

/// A socket that is listening. Dropping it removes the socket's file.
pub enum Listener {
    Unix(OwnSocket, UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub async fn bind(listen: &Listen) -> Result<Self, BoxError> {
        Ok(match listen {
            Listen::Tcp(address) => Self::Tcp(
                TcpListener::bind(address)
                    .await
                    .map_err(|error| format!("tcp:{address}: {error}"))?,
            ),
            Listen::Unix(path) => {
                let (socket, listener) = OwnSocket::bind(path)
                    .await
                    .map_err(|error| format!("unix:{}: {error}", path.display()))?;
                Self::Unix(socket, listener)
            }
        })
    }

    pub async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(_, listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small frames are to leave at once.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        })
    }
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The file of a Unix socket.
pub struct OwnSocket {
    path: PathBuf,
    /// The lock on the file beside it (`PATH.lock`, empty, never removed).
    ///
    /// The system releases the lock of a process that dies. The holder may replace a socket that is left behind, without a race.
    /// It is released after the socket's file was removed.
    _lock: OwnedFd,
}

impl OwnSocket {
    async fn bind(path: &Path) -> Result<(Self, UnixListener), BoxError> {
        let beside = |end: &str| {
            let mut path = path.to_owned().into_os_string();
            path.push(end);
            PathBuf::from(path)
        };
        // In a folder that others can write to, a link may be there, or a pipe that blocks the one that opens it.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let lock_path = beside(".lock");
        let lock = open(&lock_path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map_err(|error| format!("{}: {}", lock_path.display(), io::Error::from(error)))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err("another sidecar listens there".into()),
            Err(error) => {
                let error = io::Error::from(error);
                return Err(format!("{}: {error}", lock_path.display()).into());
            }
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(
                    "the file exists and is not a socket: choose another path, or remove it".into(),
                );
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return Err("another program listens there".into()),
            },
            Err(_) => {}
        }
        // The mode of a new socket cannot be chosen. So it is created in a folder that only this user can enter, and renamed
        // when its mode is set. Renaming replaces a socket that is left behind.
        let nursery = beside(".new");
        let born = nursery.join("s");
        // Not by its path: a link would lead to the folder of another program, and to a file of that name in it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(left) = open(&nursery, flags, Mode::empty()) {
            let _ = unlinkat(left, "s", AtFlags::empty());
        }
        let _ = fs::remove_dir(&nursery);
        fs::DirBuilder::new().mode(0o700).create(&nursery)?;
        let listener = UnixListener::bind(&born)?;
        fs::set_permissions(&born, fs::Permissions::from_mode(0o600))?;
        fs::rename(&born, path)?;
        fs::remove_dir(&nursery)?;
        Ok((Self { path: path.to_owned(), _lock: lock }, listener))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
