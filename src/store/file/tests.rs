//! Tests of internal state. The others are in `tests/store/file_store`.
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::FileStore;
use super::access::Access;
use super::error::{Failure, failed};
use super::lock::Held;
use super::place::{Options, Place, network_by_magic};
use super::reserve::{LEAST_ROOM, fill_with_zeros};
use super::write::replace;
use crate::grant::record::Record;
use crate::store::{Binding, StoredTokens, TokenStore as _};

/// A folder that is removed after its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-refresh-file-store-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A killed run with the same process id may have left it behind, as in a container.
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn fields_of_another_version_survive_a_save() {
    const THEIRS: &str = r#"{
        "version": 1, "write_id": "0123456789abcdef0123456789abcdef", "epoch": 1, "revision": 4,
        "mood": "good", "binding": {},
        "body": {"plain": {
            "fingerprint_key": "0123456789abcdef0123456789abcdef", "weather": {"wind": 3},
            "tokens": {"access_token": "sesame", "received_at_ms": 5, "taste": ["salt"]}
        }}
    }"#;

    let folder = Folder::new();
    let path = folder.path("tokens.json");
    fs::write(&path, THEIRS).unwrap();
    let store = FileStore::new(&path);
    let theirs = store.load().await.unwrap().unwrap();
    let ours = StoredTokens::of(&theirs.to_record().unwrap().next());
    store.save(&ours, Some(theirs.write_id())).await.unwrap();

    let mut written: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["write_id"], ours.write_id().to_string());
    let mut before: serde_json::Value = serde_json::from_str(THEIRS).unwrap();
    before["write_id"] = serde_json::Value::Null;
    written["write_id"] = serde_json::Value::Null;
    for part in ["mood", "revision", "body"] {
        assert_eq!(written[part], before[part]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn network_file_systems_are_recognized() {
    let [ext, tmpfs, overlay, btrfs, xfs, zfs] =
        [0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e, 0x5846_5342, 0x2fc1_2fc1];
    for local in [ext, tmpfs, overlay, btrfs, xfs, zfs] {
        assert_eq!(network_by_magic(local), None, "{local:#x}");
    }
    let [nfs, smb2, cifs, fuse] = [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x6573_5546];
    for shared in [nfs, smb2, cifs, fuse] {
        assert!(network_by_magic(shared).is_some(), "{shared:#x}");
    }
}

#[test]
fn permanent_errors_are_misconfigured_and_others_unavailable() {
    use rustix::io::Errno;

    let error = |errno: Errno| failed(Path::new("/a/tokens.json"), "written", &errno.into());
    for errno in [
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
    ] {
        assert!(error(errno).is_misconfigured(), "{errno}");
    }
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::NOMEM] {
        assert!(error(errno).is_unavailable(), "{errno}");
    }
    assert!(error(Errno::NOSPC).to_string().contains("make room"));
}

#[test]
fn zeros_allocate_blocks_without_fallocate() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = Folder::new();
    let path = folder.path("zeros");
    let file = File::options().write(true).read(true).create_new(true).open(&path).unwrap();
    fill_with_zeros(&file, LEAST_ROOM).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), LEAST_ROOM);
    assert!(file.metadata().unwrap().blocks() * 512 >= LEAST_ROOM);
    // The file position is back at the start.
    let mut content = Vec::new();
    (&file).read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, LEAST_ROOM);
}

#[test]
fn file_that_was_renamed_before_it_was_locked_is_not_taken() {
    let folder = Folder::new();
    let [new, data] = ["new", "data"].map(|name| folder.path(name));
    let writer = Held::take_new(&new, Access::User).unwrap();
    assert!(matches!(Held::take_existing(&new, Access::User), Err(Failure::Busy)));
    fs::rename(&new, &data).unwrap();
    assert!(!writer.is_held().unwrap());
    assert!(matches!(Held::take_existing(&new, Access::User), Ok(None)));
    // Under its new name, the writer still holds it.
    assert!(matches!(Held::take_existing(&data, Access::User), Err(Failure::Busy)));
    drop(writer);
    assert!(matches!(Held::take_existing(&data, Access::User), Ok(Some(_))));
}

#[test]
fn lock_file_that_its_holder_removes_is_never_held_twice() {
    let folder = Folder::new();
    let path = folder.path("lock");
    let holders = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut taken = 0;
                while taken < 500 {
                    let Ok(held) = Held::take(&path, Access::User) else { continue };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    holders.fetch_sub(1, Ordering::SeqCst);
                    // From here on, another thread may take the lock.
                    fs::remove_file(&path).unwrap();
                    drop(held);
                    taken += 1;
                }
            });
        }
    });
}

#[test]
fn copy_of_the_handle_in_a_child_does_not_prolong_the_lock() {
    let folder = Folder::new();
    let path = folder.path("lock");
    let held = Held::take(&path, Access::User).unwrap();
    let _childs = held.file().try_clone().unwrap();
    drop(held);
    assert!(Held::take(&path, Access::User).is_ok());
}

#[test]
fn lost_lock_prevents_the_replacement_of_the_record() {
    let folder = Folder::new();
    let place = Place::find(&folder.path("tokens.json"), Options::default()).unwrap();
    for lost in [&place.save_lock, &place.new] {
        let lock = Held::take(&place.save_lock, Access::User).unwrap();
        let new = Held::take_new(&place.new, Access::User).unwrap();
        fs::remove_file(lost).unwrap();
        assert!(matches!(replace(&place, new, &lock), Err(Failure::Busy)));
        assert!(!place.data.exists());
        drop(fs::remove_file(&place.new));
    }
}

#[tokio::test]
async fn links_to_foreign_files_are_not_written_to() {
    let folder = Folder::new();
    let [path, victim] = ["tokens.json", "victim"].map(|name| folder.path(name));
    for suffix in [".new", ".reserved"] {
        for plant in [
            |victim: &Path, path: &Path| std::os::unix::fs::symlink(victim, path).unwrap(),
            |victim: &Path, path: &Path| fs::hard_link(victim, path).unwrap(),
        ] {
            let planted = folder.path(&format!("tokens.json{suffix}"));
            fs::write(&victim, "not yours").unwrap();
            // Only its second name distinguishes it from a file of the store.
            fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
            plant(&victim, &planted);
            let store = FileStore::new(&path);
            let before = store.load().await.unwrap();
            let record = before.as_ref().map_or_else(
                || Record::new(Binding::default().shared()),
                |before| before.to_record().unwrap().next(),
            );
            let record = StoredTokens::of(&record);
            store.save(&record, before.map(|before| before.write_id())).await.unwrap();
            assert_eq!(fs::read(&victim).unwrap(), b"not yours");
            assert!(fs::symlink_metadata(&planted).is_err(), "{planted:?}");
        }
    }
}
