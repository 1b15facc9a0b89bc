//! What cannot be seen from outside; the rest is in `tests/store/file_store`.
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::access::Access;
use super::lock::{Held, Taken};
use super::place::{failed, network_by_magic};
use super::write::{LEAST_ROOM, fill_with_zeros, replace};
use super::*;
use crate::store::Binding;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-refresh-file-store-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Of a run that was killed, under the same process id: in containers it comes again.
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
async fn fields_of_another_version_survive_what_this_one_saves() {
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
    let ours = theirs.next();
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
fn network_file_systems_are_told_from_local_ones() {
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
fn what_a_human_must_mend_is_told_from_what_may_pass() {
    use rustix::io::Errno;

    let told = |errno: Errno| failed(Path::new("/a/tokens.json"), "written", &errno.into());
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
        assert!(told(errno).is_misconfigured(), "{errno}");
    }
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::NOMEM] {
        assert!(told(errno).is_unavailable(), "{errno}");
    }
    assert!(told(Errno::NOSPC).to_string().contains("make room"));
}

#[test]
fn zeros_take_up_room_where_nothing_else_does() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = Folder::new();
    let path = folder.path("zeros");
    let file = File::options().write(true).read(true).create_new(true).open(&path).unwrap();
    fill_with_zeros(&file, LEAST_ROOM).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), LEAST_ROOM);
    assert!(file.metadata().unwrap().blocks() * 512 >= LEAST_ROOM);
    // The record that follows is written from the start.
    let mut content = Vec::new();
    (&file).read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, LEAST_ROOM);
}

#[test]
fn a_file_that_was_renamed_while_it_was_waited_for_is_not_taken() {
    let folder = Folder::new();
    let [new, data] = ["new", "data"].map(|name| folder.path(name));
    let Taken::Held(writer) = Held::take_new(&new, Access::User).unwrap() else {
        panic!("it is free")
    };
    assert!(matches!(Held::take_existing(&new, Access::User).unwrap(), Taken::Busy));
    fs::rename(&new, &data).unwrap();
    assert!(!writer.is_held().unwrap());
    assert!(matches!(Held::take_existing(&new, Access::User).unwrap(), Taken::Missing));
    // Under its new name it is still the writer's.
    assert!(matches!(Held::take_existing(&data, Access::User).unwrap(), Taken::Busy));
    drop(writer);
    assert!(matches!(Held::take_existing(&data, Access::User).unwrap(), Taken::Held(_)));
}

#[test]
fn a_lock_file_that_is_removed_by_its_holder_is_never_held_twice() {
    let folder = Folder::new();
    let path = folder.path("lock");
    let holders = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut taken = 0;
                while taken < 500 {
                    let Taken::Held(held) = Held::take(&path, Access::User).unwrap() else {
                        continue;
                    };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    holders.fetch_sub(1, Ordering::SeqCst);
                    // From here on there may be another.
                    fs::remove_file(&path).unwrap();
                    drop(held);
                    taken += 1;
                }
            });
        }
    });
}

#[test]
fn a_copy_of_the_handle_in_a_child_does_not_prolong_the_lock() {
    let folder = Folder::new();
    let path = folder.path("lock");
    let Taken::Held(held) = Held::take(&path, Access::User).unwrap() else { panic!("it is free") };
    let _childs = held.file().try_clone().unwrap();
    drop(held);
    assert!(matches!(Held::take(&path, Access::User).unwrap(), Taken::Held(_)));
}

#[test]
fn nothing_is_replaced_under_a_lock_that_is_lost() {
    let folder = Folder::new();
    let place = Place::find(&folder.path("tokens.json"), Options::default()).unwrap();
    for lost in [&place.save_lock, &place.new] {
        let Taken::Held(lock) = Held::take(&place.save_lock, Access::User).unwrap() else {
            panic!("it is free")
        };
        let Taken::Held(new) = Held::take_new(&place.new, Access::User).unwrap() else {
            panic!("it is free")
        };
        fs::remove_file(lost).unwrap();
        assert!(replace(&place, new, &lock).unwrap().is_none());
        assert!(!place.data.exists());
        drop(fs::remove_file(&place.new));
    }
}

#[tokio::test]
async fn what_is_behind_other_names_is_not_written_to() {
    let folder = Folder::new();
    let [path, victim] = ["tokens.json", "victim"].map(|name| folder.path(name));
    for suffix in [".new", ".reserved"] {
        for plant in [
            |victim: &Path, path: &Path| std::os::unix::fs::symlink(victim, path).unwrap(),
            |victim: &Path, path: &Path| fs::hard_link(victim, path).unwrap(),
        ] {
            let planted = folder.path(&format!("tokens.json{suffix}"));
            fs::write(&victim, "not yours").unwrap();
            // Nothing but its second name tells it from a file of the store.
            fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
            plant(&victim, &planted);
            let store = FileStore::new(&path);
            let before = store.load().await.unwrap();
            let record = before
                .as_ref()
                .map_or_else(|| StoredTokens::new(Binding::default()), |record| record.next());
            store.save(&record, before.map(|before| before.write_id())).await.unwrap();
            assert_eq!(fs::read(&victim).unwrap(), b"not yours");
            assert!(fs::symlink_metadata(&planted).is_err(), "{planted:?}");
        }
    }
}
